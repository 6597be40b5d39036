// Package oauth is the ground floor: the values and rules of the RFCs that every other package stands on, each written
// once.
//
// It holds values and pure functions. It has no store, no network, no clock and no HTTP, and imports the standard
// library and go-jose alone, so storage, plugins, manifests, the server and the configuration may all import it. A rule
// that two packages need belongs here. A rule that depends on what is stored, on the time or on another server does
// not.
//
// # Where each rule is
//
//   - host.go: which hosts are the user's own machine ("loopback" has one meaning) and which are the machine of this
//     process, what can be a host and what is a name, and lists of hosts.
//   - issuer.go: what an issuer may be.
//   - redirect.go, privateuse.go: redirect URIs, on the web and of installed apps, registered and asked for. origin.go:
//     origins of pages, and those that are a client's own.
//   - scope.go, pkce.go: the names and the syntax of scopes, and proof keys. clientid.go, secret.go: ids and secrets
//     that an operator brings.
//   - client.go, fields.go: [Client], all that can be said of a client, and the table of its fields, over which
//     everything loops that reads, writes or shows one. granttypes.go, clientauth.go, algorithms.go, accesstoken.go,
//     idtoken.go, sector.go: what follows from the fields.
//   - resource.go: what may identify a resource server, which of them a client is, and when two identifiers are one.
//     access.go, groups.go: who may use a client, and the groups that it is told. identity.go: the workloads that are a
//     client. forwardauth.go: the hosts at which a client is an app behind a proxy.
//   - assurance.go: how surely somebody has proven who they are (acr, amr).
//   - check.go, checktogether.go: [Check], the rules that a client must keep, however it came to be one; a [Policy]
//     says in what the ways to become one differ on purpose. address.go, keys.go: addresses and JWK Sets.
//   - registration.go: a client in the words of RFC 7591.
//   - error.go: error codes, and [Error], the one form in which a request is refused.
//   - refusal.go: [Refusal], an Error with the request that it answered, as operators are shown it.
//   - rules.go: the names of the rules that refuse requests; rules_request.go and rules_manifest.go say what each rule
//     means and what to do, rules_own.go what those do who have no manifest. nearest.go: what was probably meant.
//     redact.go: what looks like a credential. plain.go, text.go: text of others, in one line of a page or of an error.
package oauth
