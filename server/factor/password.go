package factor

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	zxcvbn "github.com/ccojocar/zxcvbn-go"
	"github.com/ccojocar/zxcvbn-go/frequency"
	"github.com/ccojocar/zxcvbn-go/matching"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Passwords are hashed with argon2id (RFC 9106): 19 MiB and two passes, which OWASP recommends.
const (
	argonMemory  = 19 << 10 // KiB
	argonPasses  = 2
	argonThreads = 1
	argonLen     = 32

	// Bounds of what is read: hashes can come from elsewhere.
	mostMemory = 64 << 10
	mostPasses = 10
)

// MaxPassword is in bytes.
const MaxPassword = 1024

var phcText = base64.RawStdEncoding

// HashPassword makes the PHC string of a password.
func HashPassword(password string) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	sum := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonThreads, argonLen)
	return argonKind(argonMemory, argonPasses, argonThreads) + phcText.EncodeToString(salt) + "$" +
		phcText.EncodeToString(sum)
}

// argonHash is a PHC string that was read.
type argonHash struct {
	memory, passes uint32
	threads        uint8
	salt, sum      []byte
}

var errNotHash = errors.New("is neither a PHC string of argon2id nor a hash of bcrypt")

func parseArgon(phc string) (h argonHash, err error) {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return h, errNotHash
	}
	version := 0
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return h, errors.New("is of another version of argon2 than 19")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads); err != nil ||
		h.passes < 1 || h.passes > mostPasses || h.threads < 1 || h.memory < 8*uint32(h.threads) || h.memory > mostMemory {
		return h, fmt.Errorf("has parameters out of bounds: at most m=%d (KiB), t=%d", mostMemory, mostPasses)
	}
	if h.salt, err = phcText.DecodeString(parts[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return h, errors.New("has a salt that is not 8 to 64 bytes in base64")
	}
	if h.sum, err = phcText.DecodeString(parts[5]); err != nil || len(h.sum) < 16 || len(h.sum) > 64 {
		return h, errors.New("has a hash that is not 16 to 64 bytes in base64")
	}
	return h, nil
}

// CheckHash says what is wrong with a hash that comes from elsewhere; nil if [CheckPassword] takes it.
func CheckHash(hash string) error {
	if strings.HasPrefix(hash, "$argon2") {
		_, err := parseArgon(hash)
		return err
	}
	if _, err := bcrypt.Cost([]byte(hash)); err != nil {
		return errNotHash
	}
	return nil
}

// CheckPassword reports whether a password is that of a hash, and whether the hash is another than [HashPassword] would
// make today, so that it should be replaced.
func CheckPassword(hash, password string) (right, stale bool) {
	if h, err := parseArgon(hash); err == nil {
		sum := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, uint32(len(h.sum)))
		return subtle.ConstantTimeCompare(sum, h.sum) == 1,
			h.memory != argonMemory || h.passes != argonPasses || h.threads != argonThreads || len(h.sum) != argonLen
	}
	// A password that bcrypt cannot take (over 72 bytes) is always wrong; comparing only its beginning would accept
	// strangers.
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil && len(password) <= 72, true
}

// Weakness says why a password is not taken; "" if it is. It is a key of the texts of pages.
type Weakness string

// Weaknesses.
const (
	WeakShort   Weakness = "short"   // less than [MinPassword] characters
	WeakLong    Weakness = "long"    // more than [MaxPassword] bytes
	WeakGuessed Weakness = "guessed" // it is found in seconds: a word, a name, a row of keys
	WeakKnown   Weakness = "known"   // it has what is known of the user: name, address
)

// MinPassword is in characters.
const MinPassword = 8

// leastScore is that of zxcvbn, from 0 to 4: 3 withstands 10^8 guesses.
const leastScore = 3

// Weak judges a password of somebody of whom this is known: name, address, and so on.
func Weak(password string, known ...string) Weakness {
	switch n := len([]rune(password)); {
	case len(password) > MaxPassword:
		return WeakLong
	case n < MinPassword:
		return WeakShort
	}
	judged := password
	if r := []rune(judged); len(r) > 64 { // zxcvbn takes long for long ones
		judged = string(r[:64])
	}
	if score(judged, known) >= leastScore {
		return ""
	}
	if score(judged, nil) >= leastScore {
		return WeakKnown
	}
	return WeakGuessed
}

// zxcvbn keeps its words as it has read them, beside the tables that it has made of them: 1.5 MiB in each process.
func init() { clear(frequency.Lists) }

// leet are the signs that zxcvbn reads as letters as well.
var leet = map[string]string{"a": "4@", "b": "8", "c": "({[<", "e": "3", "g": "69", "i": "1!|", "l": "1|7", "o": "0",
	"s": "$5", "t": "+7", "x": "%", "z": "2"}

// plainly has each of these signs as one letter.
var plainly = strings.NewReplacer("4", "a", "@", "a", "8", "b", "(", "c", "{", "c", "[", "c", "<", "c", "3", "e",
	"6", "g", "9", "g", "1", "i", "!", "i", "|", "l", "0", "o", "$", "s", "5", "s", "+", "t", "7", "t", "%", "x", "2", "z")

// mostReading is how many readings of a password zxcvbn goes through, times the square of its length: a tenth of a
// second.
const mostReading = 8 * 64 * 64

// score is that of zxcvbn. It goes through all readings of signs as letters, of which there are hundreds where somebody
// has typed many kinds of signs, which would take seconds and keep others from signing in. Then only one is looked at.
func score(password string, known []string) int {
	readings := 1
	for _, signs := range leet {
		kinds := 0
		for _, sign := range signs {
			if strings.ContainsRune(password, sign) {
				kinds++
			}
		}
		readings *= max(1, kinds)
	}
	for _, either := range "1|7" { // two letters each
		if strings.ContainsRune(password, either) {
			readings *= 2
		}
	}
	if readings*len(password)*len(password) <= mostReading {
		return zxcvbn.PasswordStrength(password, known).Score
	}
	return min(zxcvbn.PasswordStrength(password, known, matching.FilterL33tMatcher).Score,
		zxcvbn.PasswordStrength(plainly.Replace(password), known, matching.FilterL33tMatcher).Score)
}

// Fingerprint tells one hash from another and opens nothing.
func Fingerprint(hash string) string {
	sum := sha256.Sum256([]byte("warifu password\n" + hash))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
