// Package migrate makes a configuration and manifests of this server of what another one was run with. There is one it
// knows: [Dex].
//
// Use it for the command `warifu migrate`. It reads a text and makes files in memory ([Result]); [Result.Write] puts
// them where nothing is yet.
//
// # Flow
//
//  1. source.go finds the configuration: in a file of its own, in a ConfigMap or Secret of Kubernetes, in the values of
//     a Helm chart.
//  2. section.go walks it, key by key. Dex reads keys without regard to case and ignores those that it does not know;
//     so does this, and says so.
//  3. One file for each part of it (storage.go, web.go, people.go, clients.go, connectors.go) writes down what that
//     part is here.
//  4. What the configuration language or the manifests refuse of it is taken out again, with the reason that they give
//     (refused.go): so what is left is valid.
//
// # Invariants
//
//   - Each key is carried, or listed in [Result.Leftovers] with its place and the reason. Nothing gets lost in silence.
//   - What decides who gets in is never widened: a client that only certain connectors may use is left out when none of
//     them comes along.
//   - Secrets of clients go to files that only their owner may read, never into a manifest, a command or a message. The
//     environment is not read for secrets: what refers to a variable goes on referring to it.
//   - A file that Dex would refuse is refused, with all that is wrong and where.
package migrate
