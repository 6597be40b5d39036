// Package strictyaml reads the YAML that people write for this program, manifests and the configuration: strictly,
// with the position of everything, and with all faults at once.
//
// Use it for files that a person will correct. It knows nothing of keys and their meaning: callers that do add their
// own faults to the same [Report].
//
// # Flow
//
//  1. [Split] checks the bytes of a file and cuts it into documents (text.go): size, encoding, control characters.
//  2. [Document.Tree] makes a tree of [Value]s of one (tree.go): depth, aliases, merge keys, duplicate keys, tags.
//  3. The caller walks the tree and reports what it does not take: [Report.Errorf], with [Nearest] for the word that
//     was meant.
//
// # Invariants
//
//   - Input is hostile: size, depth, aliases and the number of faults are bounded before they cost anything
//     ([MaxBytes] and the others), and whatever the library panics on is a fault.
//   - A value has one of JSON's types. Other tools give tags such as !Ref and !!binary a meaning that would be lost
//     here, so they are refused; a date is text.
//   - A syntax error in one document leaves the others readable, and is explained to someone who does not know how a
//     parser works.
//
// # The library
//
// The parser below is gopkg.in/yaml.v3. It is no longer maintained, and go.yaml.in/yaml/v3 is its successor; it stays
// because the project's list of dependencies names it, and because this package is the only one that hands it what
// comes from outside: what it is trusted with is bounded here.
package strictyaml
