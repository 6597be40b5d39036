// Package pluginpb is the wire contract of plugins: the .proto files below
// warifu/plugin/v1 and the Go code generated from them.
//
// Authors of plugins in Go need package plugins only; authors in other languages
// take the .proto files. Never print these messages: protobuf-go ignores
// debug_redact, so String, prototext and %v show the values of variables.
//
// `go generate ./plugins/...` makes the code again and needs nothing but Go.
package pluginpb

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.50.0 generate
