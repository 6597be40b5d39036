// Package config is the language of the configuration file of `warifu serve`: its keys, what may stand there, and how
// the environment overrides it.
//
// Use it to read a configuration ([Read]), to make one up ([Default]), and for the JSON Schema that editors want
// ([Schema]). It starts nothing and writes nothing.
//
// # Flow
//
//	file ─ decode.go ─┐
//	                  ├─ [Config] ─ check*.go ─ load.go ─ [Settings]
//	environ ─ env.go ─┘
//
// The types in config.go are the language: a key is a field, its comment for people is the jsonschema tag. Decoding
// walks the document (package strictyaml) along these types and remembers where each value stood, so that a later
// check can point at it; a value that came from the environment is reported under its variable's name. Checking looks
// at the values, loading at this machine: it reads every file that is named, and what it read is what a server is
// built of.
//
// Below connectors[].config stand the keys of each kind, which package dex knows (connectors.go). Whoever gives a
// configuration of Dex is told where its keys went (dexfile.go). A server that runs reads its configuration again, and
// [Settings.Since] says what is different and what of that counts without a restart; [Settings.Drops] says what would
// go that a slip may have taken out, which counts only when somebody asks for it (changes.go).
//
// # Invariants
//
//   - What [Read] accepts can be served, and what it refuses cannot: `warifu config validate` and `warifu serve` both
//     call it, and a server is built of nothing but its answer. What a start also needs depends on the moment and not
//     on the configuration: a free port, an etcd that answers, permission to write to the data directory.
//   - A rule stands once. What another package insists on is asked of that package: oauth about issuers, hosts, origins
//     and resource identifiers, server about lifetimes, scopes and claims, connector about logins, dex about the
//     settings of connectors, plugins about names. Rules that stand here are about this language alone: which keys need
//     each other or exclude each other, the listeners, files and bounds of one process.
//   - Every key is in config.example.yaml with a comment, and in config.schema.json; tests hold both.
//   - All faults are found in one go, each with file, line and column, and with the nearest right word where there is
//     one.
//   - A fault never shows what a secret file holds.
package config
