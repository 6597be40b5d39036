package factor

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/warifu/warifu/storage"
)

// Passkeys asks browsers for passkeys, and checks what they answer (Web Authentication Level 3). Each proves two things
// at once: that somebody has it, and that its device knows them by a fingerprint, a face or a PIN (user verification).
// It answers at this address alone, so it cannot be phished.
type Passkeys struct {
	web *webauthn.WebAuthn
}

// NewPasskeys takes the issuer's address and how people call the site. It returns nil if there can be none: passkeys
// belong to a host name (the RP ID), so there are none where the issuer's host is an IP address.
func NewPasskeys(issuer *url.URL, site string) *Passkeys {
	host := issuer.Hostname()
	if _, err := netip.ParseAddr(host); err == nil || protocol.ValidateRPID(host) != nil {
		return nil
	}
	yes := true
	web, err := webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: site, RPOrigins: []string{issuer.Scheme + "://" + issuer.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementRequired,
			RequireResidentKey: &yes, UserVerification: protocol.VerificationRequired},
	})
	if err != nil { // not for a host that is one
		return nil
	}
	return &Passkeys{web}
}

// NewChallenge is what a passkey is asked to sign, once.
func NewChallenge() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}

// Holder is a user to authenticators. Name and DisplayName are shown by them, and prove nothing.
type Holder struct {
	Handle            []byte
	Name, DisplayName string
	Passkeys          []storage.Passkey
}

// WebAuthnID is of [webauthn.User], as are those that follow.
func (h Holder) WebAuthnID() []byte { return h.Handle }

// WebAuthnName is the name to tell accounts apart.
func (h Holder) WebAuthnName() string { return h.Name }

// WebAuthnDisplayName is the name for people.
func (h Holder) WebAuthnDisplayName() string { return cmp.Or(h.DisplayName, h.Name) }

// WebAuthnCredentials are the passkeys.
func (h Holder) WebAuthnCredentials() []webauthn.Credential {
	all := make([]webauthn.Credential, 0, len(h.Passkeys))
	for _, p := range h.Passkeys {
		c := webauthn.Credential{ID: p.ID, PublicKey: p.PublicKey, AttestationFormat: string(protocol.AttestationFormatNone),
			Flags: webauthn.CredentialFlags{UserPresent: true, UserVerified: p.Verifies, BackupEligible: p.Syncable,
				BackupState: p.Synced},
			Authenticator: webauthn.Authenticator{AAGUID: p.AAGUID, SignCount: p.Count}}
		for _, t := range p.Transport {
			c.Transport = append(c.Transport, protocol.AuthenticatorTransport(t))
		}
		all = append(all, c)
	}
	return all
}

func (h Holder) descriptors() []protocol.CredentialDescriptor {
	all := make([]protocol.CredentialDescriptor, 0, len(h.Passkeys))
	for _, c := range h.WebAuthnCredentials() {
		all = append(all, c.Descriptor())
	}
	return all
}

// CreationOptions are what a browser is given to make a passkey, as PublicKeyCredentialCreationOptionsJSON. The device
// makes none if it has one of the holder's already.
func (p *Passkeys) CreationOptions(challenge []byte, h Holder) (string, error) {
	options, _, err := p.web.BeginRegistration(h, webauthn.WithExclusions(h.descriptors()),
		webauthn.WithCredentialParameters(webauthn.CredentialParametersRecommendedL3()))
	if err != nil {
		return "", fmt.Errorf("ask for a new passkey: %w", err)
	}
	options.Response.Challenge = challenge
	return text(options.Response)
}

// RequestOptions are what a browser is given to use a passkey, as PublicKeyCredentialRequestOptionsJSON: any that the
// browser has for this site, or one of these alone.
func (p *Passkeys) RequestOptions(challenge []byte, these []storage.Passkey) (string, error) {
	options, _, err := p.web.BeginDiscoverableLogin(webauthn.WithChallenge(challenge),
		webauthn.WithAllowedCredentials(Holder{Passkeys: these}.descriptors()))
	if err != nil {
		return "", fmt.Errorf("ask for a passkey: %w", err)
	}
	return text(options.Response)
}

// Accepted is what a browser is told of the passkeys that count, as AllAcceptedCredentialsOptions (Web Authentication
// section 5.1.10.3): devices and password managers forget the others of this user.
func (p *Passkeys) Accepted(handle []byte, these []storage.Passkey) (string, error) {
	ids := make([]protocol.URLEncodedBase64, 0, len(these))
	for _, k := range these {
		ids = append(ids, k.ID)
	}
	return text(map[string]any{"rpId": p.web.Config.RPID, "userId": protocol.URLEncodedBase64(handle),
		"allAcceptedCredentialIds": ids})
}

func text(options any) (string, error) {
	out, err := json.Marshal(options)
	if err != nil {
		return "", fmt.Errorf("ask for a passkey: %w", err)
	}
	return string(out), nil
}

// PasskeyError is the verdict that an answer proves nothing. Its text is for the operator, and has nothing of the
// answer in it.
type PasskeyError struct{ Reason string }

func (e *PasskeyError) Error() string { return e.Reason }

// ErrCopied is the verdict on a passkey whose signature counter has not moved on since it was used last: there are two
// of them, and the other one may be somebody else's (Web Authentication section 6.1.1).
var ErrCopied = errors.New("the counter of the passkey has not moved on: somebody may have a copy of it")

var errUnverified = &PasskeyError{"the device has not made sure that it is its user (user verification)"}

// refusedBy is the verdict in an error of the library.
func refusedBy(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) && e.Details != "" {
		reason, _, _ := strings.Cut(e.Details, ":")
		return &PasskeyError{strings.ToLower(reason[:1]) + reason[1:]}
	}
	return &PasskeyError{"the answer is not well-formed"}
}

// session is what the library remembers of a question.
func (p *Passkeys) session(challenge, handle []byte) webauthn.SessionData {
	return webauthn.SessionData{Challenge: protocol.URLEncodedBase64(challenge).String(),
		RelyingPartyID: p.web.Config.RPID,
		UserID:         handle, UserVerification: protocol.VerificationRequired,
		CredParams: webauthn.CredentialParametersRecommendedL3()}
}

// mostID is in bytes (Web Authentication section 5.8.3).
const mostID = 1023

// Create checks the passkey that a browser has made. The error is a [PasskeyError].
func (p *Passkeys) Create(challenge []byte, h Holder, answer string, now time.Time) (made storage.Passkey, err error) {
	defer recovered(&err)
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(answer))
	if err != nil {
		return made, refusedBy(err)
	}
	if !parsed.Response.AttestationObject.AuthData.Flags.HasUserVerified() {
		return made, errUnverified
	}
	c, err := p.web.CreateCredential(h, p.session(challenge, h.Handle), parsed)
	if err != nil {
		return made, refusedBy(err)
	}
	has := func(held storage.Passkey) bool { return bytes.Equal(held.ID, c.ID) }
	switch {
	case len(c.ID) > mostID:
		return made, &PasskeyError{"the passkey's id is too long"}
	case slices.ContainsFunc(h.Passkeys, has):
		return made, &PasskeyError{"the user has this passkey already"}
	}
	made = storage.Passkey{ID: c.ID, PublicKey: c.PublicKey, Count: c.Authenticator.SignCount, Verifies: true,
		Syncable: c.Flags.BackupEligible, Synced: c.Flags.BackupState, At: now.UTC()}
	if !bytes.Equal(c.Authenticator.AAGUID, make([]byte, 16)) {
		made.AAGUID = c.Authenticator.AAGUID
	}
	for _, t := range transports {
		if slices.Contains(c.Transport, t) {
			made.Transport = append(made.Transport, string(t))
		}
	}
	return made, nil
}

// transports are how devices are reached. What a browser calls otherwise is left out.
var transports = []protocol.AuthenticatorTransport{protocol.Internal, protocol.Hybrid, protocol.USB, protocol.NFC,
	protocol.BLE, protocol.SmartCard}

// Answer is what a passkey said, as long as nobody has checked it.
type Answer struct {
	parsed *protocol.ParsedCredentialAssertionData
	// Handle is of whom it says that it is; nil if it does not.
	Handle []byte
}

// ReadAnswer reads what a browser sends. The error is a [PasskeyError].
func ReadAnswer(answer string) (a *Answer, err error) {
	defer recovered(&err)
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(answer))
	if err != nil {
		return nil, refusedBy(err)
	}
	return &Answer{parsed: parsed, Handle: parsed.Response.UserHandle}, nil
}

// Check checks the answer of one of these passkeys, which belong to the user with a handle, and returns them as they
// are afterwards. The error is a [PasskeyError], or [ErrCopied].
func (p *Passkeys) Check(challenge, handle []byte, these []storage.Passkey, a *Answer,
	now time.Time) (after []storage.Passkey, err error) {
	defer recovered(&err)
	if !a.parsed.Response.AuthenticatorData.Flags.HasUserVerified() {
		return nil, errUnverified
	}
	c, err := p.web.ValidateLogin(Holder{Handle: handle, Passkeys: these}, p.session(challenge, handle), a.parsed)
	if err != nil {
		return nil, refusedBy(err)
	}
	if c.Authenticator.CloneWarning {
		return nil, ErrCopied
	}
	after = slices.Clone(these)
	for i := range after {
		if bytes.Equal(after[i].ID, c.ID) {
			after[i].Count, after[i].Synced, after[i].UsedAt = c.Authenticator.SignCount, c.Flags.BackupState, now.UTC()
		}
	}
	return after, nil
}

// recovered makes a verdict of a panic of what reads the CBOR and keys of strangers.
func recovered(err *error) {
	if recover() != nil {
		*err = &PasskeyError{"the answer is not well-formed"}
	}
}

// PasskeyName is how a passkey is called: by its user, else by what made it; "" if that is not known.
func PasskeyName(p storage.Passkey) string {
	if p.Name != "" || len(p.AAGUID) != 16 {
		return p.Name
	}
	return authenticators[fmt.Sprintf("%x-%x-%x-%x-%x", p.AAGUID[:4], p.AAGUID[4:6], p.AAGUID[6:8], p.AAGUID[8:10],
		p.AAGUID[10:])]
}
