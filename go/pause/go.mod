module bazaar/go/pause

go 1.21
