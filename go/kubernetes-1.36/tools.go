//go:build tools

// Package tools names what is built as a test program, so that `go mod tidy` keeps it: the end-to-end
// tests cannot be a `tool` of go.mod.
package tools

import _ "k8s.io/kubernetes/test/e2e"
