//go:build tools

// Package tools names the program that h2spec.test.ts builds, so that go.mod keeps it.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
