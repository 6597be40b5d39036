package connector

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"regexp"

	"google.golang.org/protobuf/encoding/protowire"
)

// Subjects say how the subject of a connector's user is made of the connector's id and of what it calls the user.
type Subjects string

const (
	// SubjectsHashed is the default: 32 letters and digits that tell nothing.
	SubjectsHashed Subjects = ""
	// SubjectsDex are those of Dex, so that apps see the same users as before.
	SubjectsDex Subjects = "dex"
)

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Of is the subject of the user whom a connector calls userID. Two connectors never share one.
func (s Subjects) Of(connectorID, userID string) string {
	if s == SubjectsDex {
		return DexSubject(connectorID, userID)
	}
	sum := sha256.Sum256([]byte(connectorID + "\x00" + userID))
	return lowerBase32.EncodeToString(sum[:20])
}

// DexSubject is how Dex writes a subject: a protobuf message of two texts, in base64url without padding.
func DexSubject(connectorID, userID string) string {
	var message []byte
	for number, text := range []string{userID, connectorID} {
		if text != "" {
			message = protowire.AppendTag(message, protowire.Number(number+1), protowire.BytesType)
			message = protowire.AppendString(message, text)
		}
	}
	return base64.RawURLEncoding.EncodeToString(message)
}

// ValidID reports whether an id can be that of a connector: 1 to 64 of the characters that addresses take as they are.
func ValidID(id string) bool {
	return validID.MatchString(id) && id != "." && id != ".."
}

var validID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)
