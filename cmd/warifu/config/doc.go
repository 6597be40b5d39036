// Package config is the language of the configuration file of `warifu serve`: its keys, what may stand there, and how the
// environment overrides it.
//
// Use it to read a configuration ([Read]), to make one up ([Default]), and for the JSON Schema that editors want ([Schema]). It
// starts nothing and writes nothing.
//
// # Flow
//
//	file ─ decode.go ─┐
//	                  ├─ [Config] ─ check*.go ─ load.go ─ [Settings]
//	environ ─ env.go ─┘
//
// The types in config.go are the language: a key is a field, its comment for people is the jsonschema tag. Decoding walks the
// document (package strictyaml) along these types and remembers where each value stood, so that a later check can point at it; a
// value that came from the environment is reported under its variable's name. Checking looks at the values, loading at this
// machine: it reads every file that is named, and what it read is what a server is built of.
//
// # Invariants
//
//   - What [Read] takes can be served, and what it does not take cannot: `warifu config validate` and `warifu serve` are both
//     Read, and a server reads no file of the configuration by itself. What a start also needs is of the moment, not of the
//     configuration: a port that is free, an etcd that answers, the right to write into the data directory.
//   - A rule stands once. What another package insists on when a server is built is asked of that package: the issuer of oauth,
//     lifetimes and scopes of server, logins of connector, the names of plugins.
//   - Every key is in config.example.yaml with a comment, and in config.schema.json; tests hold both.
//   - All faults are found in one go, each with file, line and column, and with the nearest right word where there is one.
//   - A fault never shows what a secret file holds.
package config
