package oauth

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// SecretBits are those of a client secret that this server makes, and that one from elsewhere needs: secrets are
// compared by a fast hash, and nothing limits how often they can be tried.
const SecretBits = 256

// Lengths of a secret from elsewhere, in characters. One that is in use already, and is to be replaced soon, may be
// shorter than SecretBits wants, but no word.
const (
	minImportedSecret = 16
	maxSecret         = 512
)

// CheckSecret says what is wrong with a client secret from elsewhere; imported is one that is in use already. It never
// repeats the secret.
func CheckSecret(secret string, imported bool) error {
	bits := BitsOf(secret)
	switch {
	case secret == "":
		return errors.New("is empty")
	case strings.ContainsFunc(secret, func(c rune) bool { return c <= ' ' || c > '~' }):
		return errors.New("has spaces, line breaks or characters that are not ASCII (RFC 6749 appendix A.2)")
	case len(secret) > maxSecret:
		return fmt.Errorf("is longer than %d characters", maxSecret)
	case bits >= SecretBits:
		return nil
	case !imported:
		return fmt.Errorf("has %d bits at most, and needs %d: make one with openssl rand -hex 32", bits, SecretBits)
	case len(secret) < minImportedSecret || bits < minImportedSecret:
		return fmt.Errorf("can be guessed (%d bits at most): give the app another one where it is now, "+
			"of %d characters or more", bits, minImportedSecret)
	}
	return nil
}

// BitsOf is how many random bits a secret can hold at most, by its length and by the alphabet that it is written in.
func BitsOf(secret string) int {
	const digits, hexadecimal = "0123456789", "abcdefABCDEF"
	const base32, base64 = "ghijklmnopqrstuvwxyz", "GHIJKLMNOPQRSTUVWXYZ_-+/" // beside those
	letters, seen := 2.0, make(map[rune]bool)
	for _, c := range secret {
		seen[c] = true
		of := 95.0
		switch {
		case strings.ContainsRune(digits, c):
			of = 10
		case strings.ContainsRune(hexadecimal, c):
			of = 16
		case strings.ContainsRune(base32, c):
			of = 36
		case strings.ContainsRune(base64, c):
			of = 64
		case c == '=': // pads base64
			continue
		}
		letters = max(letters, of)
	}
	if few := float64(len(seen)); few < 8 { // it repeats itself
		letters = min(letters, few)
	}
	return int(float64(len(secret)) * math.Log2(max(letters, 1)))
}
