package factor_test

import (
	"strings"
	"testing"

	"github.com/warifu/warifu/server/factor"
)

// Whatever an issuer or a user is called, an app reads which is which.
func TestTOTPURIHasOneColon(t *testing.T) {
	uri := factor.TOTPURI([]byte("12345678901234567890"), "localhost:7101", "a:b/c?d#e&secret=f 漢")
	label, query, _ := strings.Cut(strings.TrimPrefix(uri, "otpauth://totp/"), "?")
	if label != "localhost%3A7101:a%3Ab%2Fc%3Fd%23e&secret=f%20%E6%BC%A2" || strings.Count(query, "secret=") != 1 ||
		!strings.Contains(query, "issuer=localhost%3A7101&") {
		t.Error(uri)
	}
}
