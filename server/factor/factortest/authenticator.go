// Package factortest is what people hold in their hands, for tests: an authenticator that makes and uses passkeys, as a
// browser answers for it. It can also do what none should: each field says what it does wrong.
package factortest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// Authenticator has passkeys of one user at each site.
type Authenticator struct {
	// Origin that the browser is at, as "https://example.com".
	Origin string
	AAGUID [16]byte
	// NoVerification: it asks for neither PIN nor fingerprint.
	NoVerification bool
	// NoCounter: it counts no signatures.
	NoCounter bool
	// Elsewhere is the RP ID that it has been talked into, in the place of the one that was asked for.
	Elsewhere string
	// Forges signatures: they are another key's.
	Forges bool
	// Count is of the last signature.
	Count uint32

	keys []Key
}

// Key is a passkey.
type Key struct {
	RPID    string
	ID      []byte
	Handle  []byte
	Private *ecdsa.PrivateKey
}

// Keys are those that it has.
func (a *Authenticator) Keys() []Key { return a.keys }

var b64 = base64.RawURLEncoding

type described struct {
	ID string `json:"id"`
}

// options are those of both ceremonies.
type options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User    described   `json:"user"`
	Allow   []described `json:"allowCredentials"`
	Exclude []described `json:"excludeCredentials"`
}

// Create makes a passkey, and gives the answer of the browser, as JSON.
func (a *Authenticator) Create(asked string) (string, error) {
	var o options
	if err := json.Unmarshal([]byte(asked), &o); err != nil {
		return "", fmt.Errorf("read options: %w", err)
	}
	for _, e := range o.Exclude {
		for _, k := range a.keys {
			if b64.EncodeToString(k.ID) == e.ID {
				return "", fmt.Errorf("InvalidStateError: it has passkey %s", e.ID)
			}
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	handle, err := b64.DecodeString(o.User.ID)
	if err != nil {
		return "", fmt.Errorf("read user.id: %w", err)
	}
	k := Key{RPID: o.RP.ID, ID: make([]byte, 32), Handle: handle, Private: private}
	_, _ = rand.Read(k.ID) // never fails: crypto/rand ends the process instead
	a.keys = append(a.keys, k)
	point, err := private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return "", err
	}
	// COSE_Key of EC2: kty 2, alg -7 (ES256), crv 1 (P-256), x, y.
	cose := []byte{0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20}
	cose = append(append(append(cose, point[1:33]...), 0x22, 0x58, 0x20), point[33:]...)
	data := append(a.data(o.RP.ID, 0x40), a.AAGUID[:]...)
	data = binary.BigEndian.AppendUint16(data, uint16(len(k.ID)))
	data = append(append(data, k.ID...), cose...)
	object := append([]byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59"), byte(len(data)>>8), byte(len(data)))
	return answer(k, map[string]any{
		"clientDataJSON":    b64.EncodeToString(a.client("webauthn.create", o.Challenge)),
		"attestationObject": b64.EncodeToString(append(object, data...)),
		"transports":        []string{"internal", "somehow"},
	})
}

// Get uses a passkey, and gives the answer of the browser, as JSON.
func (a *Authenticator) Get(asked string) (string, error) {
	var o options
	if err := json.Unmarshal([]byte(asked), &o); err != nil {
		return "", fmt.Errorf("read options: %w", err)
	}
	for _, k := range a.keys {
		allowed := len(o.Allow) == 0
		for _, d := range o.Allow {
			allowed = allowed || d.ID == b64.EncodeToString(k.ID)
		}
		if k.RPID != o.RPID || !allowed {
			continue
		}
		data, client := a.data(o.RPID, 0), a.client("webauthn.get", o.Challenge)
		clientHash := sha256.Sum256(client)
		digest := sha256.Sum256(append(append([]byte{}, data...), clientHash[:]...))
		by := k.Private
		if a.Forges {
			var err error
			if by, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
				return "", err
			}
		}
		signature, err := ecdsa.SignASN1(rand.Reader, by, digest[:])
		if err != nil {
			return "", err
		}
		return answer(k, map[string]any{
			"clientDataJSON": b64.EncodeToString(client), "authenticatorData": b64.EncodeToString(data),
			"signature": b64.EncodeToString(signature), "userHandle": b64.EncodeToString(k.Handle),
		})
	}
	return "", fmt.Errorf("NotAllowedError: it has no passkey for %s that was asked for", o.RPID)
}

// data is the beginning of authenticator data (Web Authentication section 6.1).
func (a *Authenticator) data(rpID string, flags byte) []byte {
	if a.Elsewhere != "" {
		rpID = a.Elsewhere
	}
	flags |= 0x01 // somebody was there
	if !a.NoVerification {
		flags |= 0x04
	}
	if !a.NoCounter {
		a.Count++
	}
	hash := sha256.Sum256([]byte(rpID))
	return binary.BigEndian.AppendUint32(append(hash[:], flags), a.Count)
}

func (a *Authenticator) client(kind, challenge string) []byte {
	data, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": false})
	return data
}

func answer(k Key, response map[string]any) (string, error) {
	out, err := json.Marshal(map[string]any{"id": b64.EncodeToString(k.ID), "rawId": b64.EncodeToString(k.ID),
		"type": "public-key", "clientExtensionResults": map[string]any{}, "response": response})
	return string(out), err
}
