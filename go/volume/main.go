// Volume makes a volume's folder or takes it away, as local-path-provisioner has its helper pods
// do it: volume -p PATH -s BYTES -m MODE -a create|delete.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	path := flag.String("p", "", "the volume's folder")
	_ = flag.String("s", "", "its size, which a folder does not have")
	mode := flag.String("m", "Filesystem", "Filesystem, the only one there is")
	action := flag.String("a", "", "create or delete")
	flag.Parse()
	if err := act(filepath.Clean(*path), *mode, *action); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func act(path, mode, action string) error {
	// Its parent is what the pod sees of the machine: nothing above that is meant.
	if !filepath.IsAbs(path) || filepath.Dir(path) == "/" || path == "/" {
		return fmt.Errorf("%q is no volume's folder", path)
	}
	if action == "delete" {
		return os.RemoveAll(path)
	}
	if action != "create" || mode != "Filesystem" {
		return fmt.Errorf("cannot %s a volume of mode %s", action, mode)
	}
	if err := os.Mkdir(path, 0o777); err != nil && !os.IsExist(err) {
		return err
	}
	return os.Chmod(path, 0o777) // whoever a pod's process is, the umask is not theirs
}
