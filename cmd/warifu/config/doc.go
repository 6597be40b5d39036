// Package config is the language of the configuration file of `warifu serve`: its keys, what may stand there, and how the
// environment overrides it.
//
// Use it to read a configuration ([Read]), to make one up ([Default]), and for the JSON Schema that editors want ([Schema]). It
// starts nothing and writes nothing.
//
// # Flow
//
//	file ─ decode.go ─┐
//	                  ├─ [Config] ─ check*.go ─ faults, or a configuration that serves
//	environ ─ env.go ─┘
//
// The types in config.go are the language: a key is a field, its comment for people is the jsonschema tag. Decoding walks the
// document along these types and remembers where each value stood, so that a later check can point at it; a value that came from
// the environment is reported under its variable's name.
//
// # Invariants
//
//   - Every key is in config.example.yaml with a comment, and in config.schema.json; tests hold both.
//   - All faults are found in one go, each with file, line and column, and with the nearest right word where there is one.
//   - A fault never shows what a secret file holds.
package config
