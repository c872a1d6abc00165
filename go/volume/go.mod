module bazaar/go/volume

go 1.21
