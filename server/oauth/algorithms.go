package oauth

// Algorithms of signatures by their registered names (RFC 7518 section 3.1, RFC 8037 section 3.1).
const (
	AlgRS256 = "RS256"
	AlgPS256 = "PS256"
	AlgES256 = "ES256"
	AlgEdDSA = "EdDSA"
	AlgNone  = "none" // of what is not signed
)

// DefaultAlg is how this server signs for a client that has registered nothing else (OpenID Connect Dynamic Client
// Registration 1.0 section 2): every library knows it. It costs many times what the others do.
const DefaultAlg = AlgRS256

// ServerAlgs returns the algorithms with which this server signs ID tokens, userinfo and the like, by the client's
// registration.
func ServerAlgs() []string { return []string{DefaultAlg, AlgES256, AlgEdDSA, AlgPS256} }

// ClientAlgs returns the algorithms with which clients may sign assertions and request objects, in the order of
// discovery.
func ClientAlgs() []string { return []string{AlgRS256, AlgPS256, AlgES256, AlgEdDSA} }

// ProofAlgs returns the algorithms of DPoP proofs (RFC 9449 section 5.1): those of clients, and first the one that
// costs least, because there is a proof for each request.
func ProofAlgs() []string { return []string{AlgES256, AlgRS256, AlgPS256, AlgEdDSA} }

// IssuerAlgs returns the algorithms with which issuers of workloads' tokens may sign. None of them is symmetric: a key
// that is published verifies, and never signs.
func IssuerAlgs() []string { return append(ClientAlgs(), "ES384", "ES512") }

// RequestObjectAlgs returns the algorithms of request objects: those of clients, and none.
func RequestObjectAlgs() []string { return append(ClientAlgs(), AlgNone) }

// keyType is the type of the keys that an algorithm of clients takes (RFC 7518 section 6.1, RFC 8037 section 2).
func keyType(alg string) string {
	switch alg {
	case AlgRS256, AlgPS256:
		return "RSA"
	case AlgES256:
		return "EC"
	}
	return "OKP"
}
