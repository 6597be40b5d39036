package factor_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/server/factor/factortest"
	"github.com/warifu/warifu/storage"
)

const home = "https://id.example.com"

var passkeyTime = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func passkeysAt(t *testing.T, issuer string) *factor.Passkeys {
	t.Helper()
	u, err := url.Parse(issuer)
	if err != nil {
		t.Fatal(err)
	}
	return factor.NewPasskeys(u, "Example")
}

// made enrols a passkey of a device.
func made(t *testing.T, p *factor.Passkeys, device *factortest.Authenticator, h factor.Holder) storage.Passkey {
	t.Helper()
	challenge := factor.NewChallenge()
	options, err := p.CreationOptions(challenge, h)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := device.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	k, err := p.Create(challenge, h, answer, passkeyTime)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// used signs a challenge on a device, and checks it.
func used(t *testing.T, p *factor.Passkeys, device *factortest.Authenticator,
	h factor.Holder) ([]storage.Passkey, error) {
	t.Helper()
	challenge := factor.NewChallenge()
	options, err := p.RequestOptions(challenge, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := device.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	a, err := factor.ReadAnswer(answer)
	if err != nil {
		t.Fatal(err)
	}
	return p.Check(challenge, h.Handle, h.Passkeys, a, passkeyTime)
}

func TestPasskeyIsMadeAndUsed(t *testing.T) {
	t.Parallel()
	p, device := passkeysAt(t, home), &factortest.Authenticator{Origin: home}
	copy(device.AAGUID[:], "\xba\xda\x55\x66\xa7\xaa\x40\x1f\xbd\x96\x45\x61\x9a\x55\x12\x0d")
	h := factor.Holder{Handle: storage.NewHandle(), Name: "aoi", DisplayName: "Aoi"}
	k := made(t, p, device, h)
	if !k.Verifies || k.Count != 1 || !k.At.Equal(passkeyTime) || !slices.Equal(k.Transport, []string{"internal"}) {
		t.Errorf("the record is %+v", k)
	}
	if name := factor.PasskeyName(k); name != "1Password" {
		t.Errorf("it is called %q", name)
	}
	k.Name = "My laptop"
	if name := factor.PasskeyName(k); name != k.Name {
		t.Errorf("it is called %q", name)
	}
	h.Passkeys = []storage.Passkey{k}
	after, err := used(t, p, device, h)
	if err != nil {
		t.Fatal(err)
	}
	if after[0].Count != 2 || !after[0].UsedAt.Equal(passkeyTime) || h.Passkeys[0].Count != 1 {
		t.Errorf("after a use: %+v", after[0])
	}
	options, err := p.CreationOptions(factor.NewChallenge(), h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.Create(options); err == nil || !strings.Contains(err.Error(), "InvalidStateError") {
		t.Errorf("a device that has one already makes another: %v", err)
	}
}

func TestPasskeyWithoutACounterIsUsedAgain(t *testing.T) {
	t.Parallel()
	p, device := passkeysAt(t, home), &factortest.Authenticator{Origin: home, NoCounter: true}
	h := factor.Holder{Handle: storage.NewHandle(), Name: "aoi"}
	h.Passkeys = []storage.Passkey{made(t, p, device, h)}
	for range 2 {
		after, err := used(t, p, device, h)
		if err != nil {
			t.Fatal(err)
		}
		h.Passkeys = after
	}
}

func TestPasskeyAnswersThatProveNothing(t *testing.T) {
	t.Parallel()
	p := passkeysAt(t, home)
	for name, c := range map[string]struct {
		change func(*factortest.Authenticator, *factor.Holder)
		copied bool
		says   string
	}{
		"nobody verified": {change: func(d *factortest.Authenticator, _ *factor.Holder) { d.NoVerification = true }},
		"signature of another": {change: func(d *factortest.Authenticator, _ *factor.Holder) { d.Forges = true },
			says: "signature"},
		"other origin": {change: func(d *factortest.Authenticator, _ *factor.Holder) {
			d.Origin = "https://id.example.com.evil.test"
		}, says: "origin"},
		"other port": {change: func(d *factortest.Authenticator, _ *factor.Holder) { d.Origin = home + ":8443" },
			says: "origin"},
		"other scheme": {change: func(d *factortest.Authenticator, _ *factor.Holder) {
			d.Origin = "http://id.example.com"
		}, says: "origin"},
		"other RP ID": {change: func(d *factortest.Authenticator, _ *factor.Holder) {
			d.Elsewhere = "example.com"
		}},
		"counter stands": {change: func(d *factortest.Authenticator, _ *factor.Holder) { d.Count = 0 }, copied: true},
		"counter went back": {change: func(d *factortest.Authenticator, h *factor.Holder) { h.Passkeys[0].Count = 9 },
			copied: true},
		"counter is gone": {change: func(d *factortest.Authenticator, _ *factor.Holder) {
			d.Count, d.NoCounter = 0, true
		}, copied: true},
		"key was removed": {change: func(_ *factortest.Authenticator, h *factor.Holder) { h.Passkeys = nil }},
		"handle of another": {change: func(_ *factortest.Authenticator, h *factor.Holder) {
			h.Handle = storage.NewHandle()
		}},
		"public key of another": {change: func(_ *factortest.Authenticator, h *factor.Holder) {
			h.Passkeys[0].PublicKey = []byte{0xa0}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			device := &factortest.Authenticator{Origin: home}
			h := factor.Holder{Handle: storage.NewHandle(), Name: "aoi"}
			h.Passkeys = []storage.Passkey{made(t, p, device, h)}
			c.change(device, &h)
			after, err := used(t, p, device, h)
			var verdict *factor.PasskeyError
			if after != nil || errors.Is(err, factor.ErrCopied) != c.copied || errors.As(err, &verdict) == c.copied ||
				!strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, %v", after, err)
			}
		})
	}
}

func TestPasskeyChallengeOfAnother(t *testing.T) {
	t.Parallel()
	p, device := passkeysAt(t, home), &factortest.Authenticator{Origin: home}
	h := factor.Holder{Handle: storage.NewHandle(), Name: "aoi"}
	options, err := p.CreationOptions(factor.NewChallenge(), h)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := device.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	var verdict *factor.PasskeyError
	if _, err := p.Create(factor.NewChallenge(), h, answer, passkeyTime); !errors.As(err, &verdict) {
		t.Errorf("made with the answer to another challenge: %v", err)
	}
	h.Passkeys = []storage.Passkey{made(t, p, device, h)}
	if options, err = p.RequestOptions(factor.NewChallenge(), h.Passkeys); err != nil {
		t.Fatal(err)
	}
	if answer, err = device.Get(options); err != nil {
		t.Fatal(err)
	}
	a, err := factor.ReadAnswer(answer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Check(factor.NewChallenge(), h.Handle, h.Passkeys, a, passkeyTime); !errors.As(err, &verdict) {
		t.Errorf("used with the answer to another challenge: %v", err)
	}
}

func TestPasskeyMadeWithoutVerification(t *testing.T) {
	t.Parallel()
	p, device := passkeysAt(t, home), &factortest.Authenticator{Origin: home, NoVerification: true}
	h := factor.Holder{Handle: storage.NewHandle(), Name: "aoi"}
	challenge := factor.NewChallenge()
	options, err := p.CreationOptions(challenge, h)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := device.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	var verdict *factor.PasskeyError
	if _, err := p.Create(challenge, h, answer, passkeyTime); !errors.As(err, &verdict) {
		t.Errorf("a passkey of a device that asks for nothing: %v", err)
	}
}

func TestNoPasskeysAtAnAddress(t *testing.T) {
	t.Parallel()
	for issuer, want := range map[string]bool{
		"http://127.0.0.1:8080": false, "http://[::1]:8080": false, "https://192.0.2.7": false,
		"http://localhost:8080": true, "https://id.example.com/people": true,
	} {
		if got := passkeysAt(t, issuer) != nil; got != want {
			t.Errorf("passkeys at %s: %v", issuer, got)
		}
	}
}

func FuzzPasskeyAnswer(f *testing.F) {
	u, _ := url.Parse(home)
	p, device := factor.NewPasskeys(u, "Example"), &factortest.Authenticator{Origin: home}
	h := factor.Holder{Handle: storage.NewHandle(), Name: "aoi"}
	challenge := factor.NewChallenge()
	options, err := p.CreationOptions(challenge, h)
	if err != nil {
		f.Fatal(err)
	}
	created, err := device.Create(options)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(created)
	f.Add(
		`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"","signature":""}}`)
	f.Add("{}")
	f.Fuzz(func(t *testing.T, answer string) {
		var verdict *factor.PasskeyError
		if _, err := p.Create(challenge, h, answer, passkeyTime); err != nil && !errors.As(err, &verdict) {
			t.Errorf("no verdict: %v", err)
		}
		a, err := factor.ReadAnswer(answer)
		if err == nil {
			_, err = p.Check(challenge, h.Handle, nil, a, passkeyTime)
		}
		if !errors.As(err, &verdict) {
			t.Errorf("no verdict: %v", err)
		}
	})
}
