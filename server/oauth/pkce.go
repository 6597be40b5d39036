package oauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// ChallengeS256 is the one code challenge method there is (RFC 7636 section 4.3, RFC 9700 section 2.1.1).
const ChallengeS256 = "S256"

// VerifyPKCE compares a verifier with its S256 challenge (RFC 7636 section 4.6). A verifier that breaks the syntax
// never fits.
func VerifyPKCE(challenge, verifier string) bool {
	if !ValidVerifier(verifier) {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(PKCEChallenge(verifier)), []byte(challenge)) == 1
}

// PKCEChallenge is the S256 challenge of a verifier (RFC 7636 section 4.2).
func PKCEChallenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// ValidVerifier is the syntax of a code verifier (RFC 7636 section 4.1): 43 to 128 unreserved characters.
func ValidVerifier(verifier string) bool {
	odd := func(r rune) bool { return !unreserved(r) }
	return len(verifier) >= 43 && len(verifier) <= 128 && !strings.ContainsFunc(verifier, odd)
}

// ValidThumbprint is the syntax of a SHA-256 hash in base64url without padding, as of a code challenge (RFC 7636
// section 4.2) and a key's thumbprint (RFC 7638 section 3).
func ValidThumbprint(text string) bool {
	odd := func(r rune) bool { return r == '.' || r == '~' || !unreserved(r) }
	return len(text) == 43 && !strings.ContainsFunc(text, odd)
}

// unreserved are the characters that never need encoding (RFC 3986 section 2.3).
func unreserved(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		r == '-' || r == '.' || r == '_' || r == '~'
}
