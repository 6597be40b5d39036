package oauth

import (
	"regexp"
	"strings"
)

// credentialShape is what this server gives out as secrets (client secrets, codes, tokens, cookies), and JWTs of
// anybody.
var credentialShape = regexp.MustCompile(`wf[a-z]_[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)*`)

// Redact blanks what looks like a credential in text that came from outside and is to be logged or kept. Parameters
// that hold secrets are never logged at all; this is for secrets that people put where an id or a scope belongs.
func Redact(text string) string {
	if !strings.Contains(text, "wf") && !strings.Contains(text, "eyJ") {
		return text
	}
	return credentialShape.ReplaceAllLiteralString(text, "[redacted]")
}
