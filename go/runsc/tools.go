//go:build tools

// Package tools names the Go programs this module pins, so that `go mod tidy` keeps them.
package tools

import _ "gvisor.dev/gvisor/runsc"
