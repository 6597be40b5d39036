package conformance

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"hash"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// jwt is a signed JWT in its parts.
type jwt struct {
	raw    string
	header map[string]any
	claims map[string]any
}

// parseJWT takes a JWS in compact form apart, unverified.
func (t *trial) parseJWT(what, raw string) *jwt {
	j := &jwt{raw: raw}
	parts := strings.Split(raw, ".")
	t.must(len(parts) == 3, "RFC7515-7.1", "%s has three parts", what)
	for i, into := range []*map[string]any{&j.header, &j.claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		t.must(err == nil, "RFC7515-7.1", "part %d of %s is a JSON object in base64url", i+1, what)
	}
	return j
}

func (j *jwt) alg() string {
	alg, _ := j.header["alg"].(string)
	return alg
}

func (j *jwt) text(claim string) string {
	v, _ := j.claims[claim].(string)
	return v
}

// seconds is a claim that is a time; ok is false when it is absent or no number.
func (j *jwt) seconds(claim string) (time.Time, bool) {
	v, ok := j.claims[claim].(float64)
	if !ok || v != math.Trunc(v) && v > math.MaxInt32 {
		return time.Time{}, false
	}
	return time.Unix(int64(v), 0), true
}

// audience is aud as a list.
func (j *jwt) audience() []string {
	switch aud := j.claims["aud"].(type) {
	case string:
		return []string{aud}
	case []any:
		var all []string
		for _, v := range aud {
			text, _ := v.(string)
			all = append(all, text)
		}
		return all
	}
	return nil
}

// verify checks the signature with the one key of the set that fits kid, alg and use.
func (t *trial) verify(what string, j *jwt, set *jose.JSONWebKeySet) {
	alg := j.alg()
	known := []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256,
		jose.ES384, jose.ES512, jose.EdDSA}
	if !slices.Contains(known, jose.SignatureAlgorithm(alg)) {
		t.failf("OIDCC-3.1.3.7", "%s is signed with %q, which the provider's keys cannot have made", what, alg)
		return
	}
	kid, _ := j.header["kid"].(string)
	var fitting []jose.JSONWebKey
	for _, key := range set.Keys {
		if (kid == "" || key.KeyID == kid) && (key.Algorithm == "" || key.Algorithm == alg) &&
			(key.Use == "" || key.Use == "sig") {
			fitting = append(fitting, key)
		}
	}
	if !t.check(len(fitting) > 0, "OIDCC-10.1", "the JWK Set has a key for %s: kid %q, alg %s", what, kid, alg) {
		return
	}
	signed, err := jose.ParseSignedCompact(j.raw, known)
	good := false
	for _, key := range fitting {
		if err == nil {
			_, wrong := signed.Verify(key)
			good = good || wrong == nil
		}
	}
	t.check(good, "OIDCC-3.1.3.7", "the signature of %s is good", what)
}

// skew is how far clocks may be apart.
const skew = 5 * time.Minute

// checkIDToken checks what holds of every ID token (OpenID Connect Core 1.0 sections 2 and 3.1.3.7).
func (t *trial) checkIDToken(f *flow) {
	j, now := f.id, time.Now()
	t.verify("the ID token", j, f.p.keys)
	t.check(j.text("iss") == f.p.text("issuer"), "OIDCC-3.1.3.7", "iss in the ID token, %q, is the issuer", j.text("iss"))
	t.check(j.text("sub") != "" && len(j.text("sub")) <= 255, "OIDCC-2", "sub in the ID token has 1 to 255 characters")
	aud := j.audience()
	t.check(slices.Contains(aud, f.c.ID), "OIDCC-3.1.3.7", "aud in the ID token, %v, has the client", j.claims["aud"])
	if azp, given := j.claims["azp"]; given {
		t.check(azp == f.c.ID, "OIDCC-3.1.3.7", "azp in the ID token is the client")
	}
	t.check(len(aud) == 1 || j.claims["azp"] != nil, "OIDCC-3.1.3.7", "the ID token has one audience, or azp")
	exp, ok := j.seconds("exp")
	t.check(ok && exp.After(now.Add(-skew)) && exp.Before(now.AddDate(50, 0, 0)), "OIDCC-3.1.3.7",
		"exp in the ID token, %v, is to come", j.claims["exp"])
	iat, ok := j.seconds("iat")
	t.check(ok && iat.After(now.Add(-skew)) && iat.Before(now.Add(skew)), "OIDCC-3.1.3.7",
		"iat in the ID token, %v, is now", j.claims["iat"])
	if _, given := j.claims["auth_time"]; given {
		at, ok := j.seconds("auth_time")
		t.check(ok && at.Before(now.Add(skew)) && at.After(now.AddDate(-1, 0, 0)), "OIDCC-2",
			"auth_time in the ID token, %v, has been", j.claims["auth_time"])
	}
	if nonce := f.params.Get("nonce"); nonce != "" {
		t.check(j.claims["nonce"] == nonce, "OIDCC-2", "nonce in the ID token is that of the request")
	} else {
		t.check(j.claims["nonce"] == nil, "OIDCC-2", "the ID token has no nonce, as the request had none")
	}
	if acr, given := j.claims["acr"]; given {
		text, isText := acr.(string)
		t.check(isText && text != "", "OIDCC-2", "acr in the ID token is a text")
	}
	if amr, given := j.claims["amr"]; given {
		_, isList := amr.([]any)
		t.check(isList, "OIDCC-2", "amr in the ID token is a list")
	}
	if got, given := j.claims["at_hash"]; given { // may be left out of the code flow, but must not be wrong
		t.check(got == leftHalf(j.alg(), f.access), "OIDCC-3.1.3.8", "at_hash in the ID token is of the access token")
	}
	if got, given := j.claims["c_hash"]; given {
		t.check(got == leftHalf(j.alg(), f.code), "OIDCC-3.3.2.11", "c_hash in the ID token is of the code")
	}
	t.standardClaims("the ID token", j.claims)
}

// leftHalf is the hash of at_hash and c_hash (OpenID Connect Core 1.0 section 3.1.3.6).
func leftHalf(alg, value string) string {
	var h hash.Hash
	switch {
	case strings.HasSuffix(alg, "384"):
		h = sha512.New384()
	case strings.HasSuffix(alg, "512"), alg == string(jose.EdDSA):
		h = sha512.New()
	default:
		h = sha256.New()
	}
	h.Write([]byte(value))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}
