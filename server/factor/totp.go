package factor

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"github.com/warifu/warifu/storage"
)

// Codes of authenticator apps (RFC 6238): six digits, SHA-1, 30 seconds, because many apps know nothing else.
const (
	totpPeriod  = 30
	totpSecret  = 20 // bytes, as RFC 4226 section 4 recommends
	recoveryLen = 12 // characters of base32: 60 random bits
	// RecoveryCodes are how many somebody gets at once.
	RecoveryCodes = 10
)

var base32Text = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewTOTP makes a secret.
func NewTOTP() []byte {
	secret := make([]byte, totpSecret)
	_, _ = rand.Read(secret) // never fails: crypto/rand ends the process instead
	return secret
}

// TOTPText is a secret as people type it into an app.
func TOTPText(secret []byte) string { return base32Text.EncodeToString(secret) }

// TOTPURI is what the QR code of a secret holds: the format of Google Authenticator, which all apps read. The first
// colon ends the issuer, so that of a port, or of a name, is written otherwise.
func TOTPURI(secret []byte, issuer, account string) string {
	q := url.Values{"secret": {TOTPText(secret)}, "issuer": {issuer}, "algorithm": {"SHA1"}, "digits": {"6"},
		"period": {"30"}}
	part := func(name string) string { return strings.ReplaceAll(url.PathEscape(name), ":", "%3A") }
	return "otpauth://totp/" + part(issuer) + ":" + part(account) + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

// CheckTOTP checks a code, of this moment or half a minute off. It returns the record as it is afterwards: no code of
// the same step or an earlier one is taken again.
func CheckTOTP(t storage.TOTP, code string, now time.Time) (storage.TOTP, bool) {
	code = strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' {
			return -1
		}
		return r
	}, code)
	if len(t.Secret) == 0 || len(code) != 6 {
		return t, false
	}
	right := int64(0)
	for step := now.Unix()/totpPeriod - 1; step <= now.Unix()/totpPeriod+1; step++ {
		want, err := hotp.GenerateCodeCustom(TOTPText(t.Secret), uint64(step),
			hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && step > t.Step {
			right = step
		}
	}
	if right == 0 {
		return t, false
	}
	t.Step, t.UsedAt = right, now.UTC()
	return t, true
}

// NewRecoveryCodes makes a set of codes: as people write them down, and as they are stored.
func NewRecoveryCodes() (shown []string, stored []storage.RecoveryCode) {
	for range RecoveryCodes {
		code := strings.ToLower(rand.Text()[:recoveryLen])
		sum := sha256.Sum256([]byte(code))
		shown = append(shown, fmt.Sprintf("%s-%s-%s", code[:4], code[4:8], code[8:]))
		stored = append(stored, storage.RecoveryCode{Hash: sum[:]})
	}
	return shown, stored
}

// CheckRecovery checks a recovery code, and returns the set as it is afterwards.
func CheckRecovery(codes []storage.RecoveryCode, code string, now time.Time) ([]storage.RecoveryCode, bool) {
	code = strings.ToLower(strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' {
			return -1
		}
		return r
	}, code))
	sum := sha256.Sum256([]byte(code))
	after, right := append([]storage.RecoveryCode(nil), codes...), false
	for i := range after {
		if subtle.ConstantTimeCompare(after[i].Hash, sum[:]) == 1 && after[i].UsedAt.IsZero() {
			after[i].UsedAt, right = now.UTC(), true
		}
	}
	return after, right
}

// UnusedRecovery is how many are left.
func UnusedRecovery(codes []storage.RecoveryCode) (n int) {
	for _, c := range codes {
		if c.UsedAt.IsZero() {
			n++
		}
	}
	return n
}
