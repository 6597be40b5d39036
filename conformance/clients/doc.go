// Package clients holds apps that sign people in, each with one OAuth library of another language or maker, used as its
// documentation says, without a workaround; its tests (build tag e2e) let somebody sign in to each of them.
//
// All apps do the same, as far as their library can: read discovery, send a person to authorize with PKCE, redeem the
// code, refresh, ask userinfo and introspection, revoke, sign the person out, and get a token of their own (client
// credentials). They get OAUTH_ISSUER, OAUTH_CLIENT_ID and OAUTH_CLIENT_SECRET in their environment, as any app of this
// platform does, print their own address, and show what they have seen as JSON.
//
// Beside them are an MCP server and agents on the SDKs of the Model Context Protocol (mcp_test.go): they are told of
// nothing but the MCP server, and find out the rest.
//
// The server is reached by https, with a certificate that each language is told to trust in its own standard way.
// Versions are pinned in go.mod, in package-lock.json and requirements.txt of each directory; the tests install what is
// missing. What takes minutes to build is in e2e.
package clients
