package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

const (
	key1 = "{kty: OKP, kid: first, crv: Ed25519, x: KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc}"
	key2 = "{kty: EC, kid: second, crv: P-256, x: QKrvCEV6Mx2cNcXBBaofJDA_36FzhbWtmZBJ5bSsvAg, y: " +
		"O5fAdi6gy-jsPH1fZL7UTiJ7A5peKV7H3TOsFzf7PBg}"
	// signs has a client sign with its own key.
	signs = "\n    tokenEndpointAuthMethod: private_key_jwt\n    jwks: {keys: [" + key1 + "]}"
)

// with is appYML with lines added to spec.oauth.
func with(app, lines string, change ...string) string {
	return appYML(app, append([]string{"clientName: My App", "clientName: My App" + lines}, change...)...)
}

// Every field of the metadata goes from the manifest, through the hook, into the record, and back to what hooks see.
func TestMetadataReachesTheClient(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	for _, doc := range documents(t, string(read(t, "testdata/apps/client-metadata.yml"))) {
		plans, err := d.Plan(context.Background(), []*Document{doc})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Apply(context.Background(), plans[0]); err != nil {
			t.Fatal(err)
		}
	}
	client := r.view("with-keys").Client
	fields := reflect.ValueOf(client.ClientMetadata)
	for i := range fields.NumField() {
		// Only one of jwks and jwksUri can be there, and with either no workload. An app behind forward auth neither
		// pushes nor signs its requests.
		name := fields.Type().Field(i).Name
		unset := name == "JWKSURI" || name == "Identities" || strings.HasPrefix(name, "ForwardAuth")
		if fields.Field(i).IsZero() != unset {
			t.Errorf("%s is %v", name, fields.Field(i))
		}
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal([]byte(client.JWKS), &set); err != nil || len(set.Keys) != 3 ||
		set.Keys[0]["kid"] != "2026-01" {
		t.Errorf("jwks is %s: %v", client.JWKS, err)
	}
	if got := registrationOf(client).ClientMetadata; !reflect.DeepEqual(oauth.ClientMetadata(got), client.ClientMetadata) {
		t.Errorf("hooks see %+v", got)
	}
	if wiki := r.view("wiki").Client; !wiki.IsBehindForwardAuth("wiki.example.com:8443") ||
		wiki.ForwardAuthUser != oauth.ForwardUserUsername ||
		wiki.IsBehindForwardAuth("wiki.example.org") || len(wiki.Secrets) > 0 {
		t.Errorf("wiki: %+v", wiki)
	}
	if service := r.view("service").Client; len(service.RedirectURIs) > 0 || service.JWKS != "" ||
		service.DefaultMaxAge != nil || len(service.Secrets) != 1 {
		t.Errorf("service: %+v", service)
	}
	if job := r.view("job").Client; len(job.Secrets) > 0 || !slices.Equal(job.Identities, []oauth.WorkloadIdentity{
		{Issuer: "https://ci.example.com", Subject: "job"}, {Issuer: "spiffe://example.org",
			Subject: "spiffe://example.org/job", Audience: "warifu"}}) {
		t.Errorf("job: %+v", job)
	}
	if local := r.view("local").Client; local.DefaultMaxAge == nil || *local.DefaultMaxAge != 0 {
		t.Errorf("defaultMaxAge 0 is %v", local.DefaultMaxAge)
	}
	for _, doc := range documents(t, string(read(t, "testdata/apps/client-metadata.yml"))) {
		if plans, err := d.Plan(context.Background(), []*Document{doc}); err != nil || plans[0].Changed {
			t.Errorf("%s applied again: %v, %+v", doc.App.Metadata.Name, err, plans)
		}
	}
}

func TestPlanOfMetadata(t *testing.T) {
	const takeAway = "worker web: take away OAUTH_CLIENT_SECRET\ncontainer api: take away OAUTH_CLIENT_SECRET"
	const set = "worker web: set OAUTH_CLIENT_SECRET\ncontainer api: set OAUTH_CLIENT_SECRET"
	const another = "gives every user another sub: the app will take them for new users"
	for name, c := range map[string]struct {
		was, will string // lines of spec.oauth
		want      string // one line a change
		says      []string
	}{
		"usual grant types, written": {"", "\n    grantTypes: [refresh_token, authorization_code]",
			"store the new manifest; nothing else changes", nil},
		"no refresh tokens any more": {"", "\n    grantTypes: [authorization_code]", "grantTypes: remove refresh_token",
			[]string{"removes the grant type refresh_token: 1 grant can no longer be refreshed"}},
		"other grant types": {"\n    grantTypes: [authorization_code, client_credentials]",
			"\n    grantTypes: [authorization_code, refresh_token]",
			"grantTypes: add refresh_token\ngrantTypes: remove client_credentials",
			[]string{"removes the grant type client_credentials: token requests with it will fail"}},
		"its own key": {"", signs, `tokenEndpointAuthMethod: "" -> "private_key_jwt"` + "\njwks: add key first\n" + takeAway,
			[]string{"makes the client sign with its own key: its secret stops working, and token requests that are not " +
				"signed will fail"}},
		"a secret again": {signs, "", `tokenEndpointAuthMethod: "private_key_jwt" -> ""` + "\njwks: remove key first\n" + set,
			[]string{"gives the client a secret: token requests that are signed with its key will fail",
				"removes key first: what is signed with it will be refused"}},
		"public instead of its own key": {signs, "\n    public: true", "public: false -> true\n" +
			`tokenEndpointAuthMethod: "private_key_jwt" -> ""` + "\njwks: remove key first",
			[]string{"makes the client public: it no longer has to sign token requests, and PKCE is required of every sign-in"}},
		"its own key instead of public": {"\n    public: true", signs, "public: true -> false\n" +
			`tokenEndpointAuthMethod: "" -> "private_key_jwt"` + "\njwks: add key first",
			[]string{"makes the client confidential: token requests that are not signed with its key will fail"}},
		"another key": {signs, strings.Replace(signs, key1, key2, 1), "jwks: add key second\njwks: remove key first",
			[]string{"removes key first: what is signed with it will be refused"}},
		"another key of that name": {signs, strings.Replace(signs, key1, strings.Replace(key2, "second", "first", 1), 1),
			"jwks: replace key first",
			[]string{"replaces key first: what is signed with the previous one will be refused"}},
		"basic only": {"", "\n    tokenEndpointAuthMethod: client_secret_basic",
			`tokenEndpointAuthMethod: "" -> "client_secret_basic"`,
			[]string{"accepts the secret only by HTTP Basic: token requests that have it in the body will fail"}},
		"algorithms": {"", "\n    idTokenSignedResponseAlg: ES256\n    userinfoSignedResponseAlg: EdDSA\n" +
			"    requestObjectSigningAlg: none",
			`idTokenSignedResponseAlg: "" -> "ES256"` + "\n" + `userinfoSignedResponseAlg: "" -> "EdDSA"` + "\n" +
				`requestObjectSigningAlg: "" -> "none"`,
			[]string{"signs ID tokens with ES256: an app that expects RS256 will refuse them",
				"makes userinfo a JWT that is signed with EdDSA: an app that expects something else will refuse it",
				"accepts no request objects that are signed: sign-ins that use them will fail"}},
		"ID tokens": {"", "\n    idTokenClaims: standard\n    idTokenOnRefresh: never",
			`idTokenClaims: "" -> "standard"` + "\n" + `idTokenOnRefresh: "" -> "never"`,
			[]string{"takes the claims of scopes out of ID tokens: an app that does not ask userinfo no longer " +
				"knows its users by name and e-mail",
				"gives no ID token on a refresh: an app that needs a fresh one has to send its users through sign-in again"}},
		"claims in ID tokens": {"\n    idTokenClaims: standard", "\n    idTokenClaims: scopes",
			`idTokenClaims: "standard" -> "scopes"`,
			[]string{"puts the claims of scopes into ID tokens: whoever sees one learns them"}},
		"access tokens": {"", "\n    accessTokenType: JWT\n    accessTokenAlg: RS256",
			`accessTokenType: "" -> "JWT"` + "\n" + `accessTokenAlg: "" -> "RS256"`,
			[]string{"makes access tokens JWT with RS256: whoever expects at+jwt with ES256 will refuse them"}},
		"opaque access tokens": {"\n    accessTokenAlg: RS256", "\n    accessTokenType: opaque",
			`accessTokenType: "" -> "opaque"` + "\n" + `accessTokenAlg: "RS256" -> ""`,
			[]string{"makes access tokens opaque: whoever expects at+jwt with RS256 will refuse them"}},
		"requirements": {"", "\n    requirePushedAuthorizationRequests: true\n    dpopBoundAccessTokens: true\n" +
			"    requireAuthTime: true\n    defaultMaxAge: 60",
			"requirePushedAuthorizationRequests: false -> true\ndpopBoundAccessTokens: false -> true\ndefaultMaxAge: none -> " +
				"60\nrequireAuthTime: false -> true",
			[]string{"binds all access tokens to a key of the app: token requests without a DPoP proof will fail",
				"accepts only pushed requests (RFC 9126): other sign-ins will fail",
				"asks users to sign in again if they did so more than 60 seconds ago"}},
		"pairwise": {"", "\n    subjectType: pairwise", `subjectType: "" -> "pairwise"`, []string{another}},
		"public subjects": {"\n    subjectType: pairwise", "\n    subjectType: public", `subjectType: "pairwise" -> "public"`,
			[]string{another}},
		"another sector": {"\n    subjectType: pairwise", "\n    subjectType: pairwise\n    sectorIdentifierUri: " +
			"https://sector.example.com/",
			`sectorIdentifierUri: "" -> "https://sector.example.com/"`, []string{another}},
		"the same sector": {"\n    subjectType: pairwise", "\n    subjectType: pairwise\n    sectorIdentifierUri: " +
			"https://app.example.com/sector",
			`sectorIdentifierUri: "" -> "https://app.example.com/sector"`, nil},
		"logout": {"\n    backchannelLogoutUri: https://app.example.com/back\n    frontchannelLogoutUri: " +
			"https://app.example.com/front",
			"\n    backchannelLogoutUri: https://app.example.com/bye\n    backchannelLogoutSessionRequired: true",
			`backchannelLogoutUri: "https://app.example.com/back" -> "https://app.example.com/bye"` + "\n" +
				"backchannelLogoutSessionRequired: false -> true\n" +
				`frontchannelLogoutUri: "https://app.example.com/front" -> ""`,
			[]string{"removes the front-channel logout: it no longer tells the app when users sign out"}},
		"a reuse interval": {"", "\n    refreshTokens: {reuseInterval: 30s}", `refreshTokens.reuseInterval: "" -> "30s"`,
			[]string{"takes a refresh token again for 30s after its use: for that long a stolen one is not noticed"}},
		"a shorter reuse interval": {"\n    refreshTokens: {reuseInterval: 30s}", "\n    refreshTokens: {reuseInterval: 0s}",
			`refreshTokens.reuseInterval: "30s" -> "0s"`, nil},
		"resources": {"\n    resourceIdentifiers: [urn:a, urn:b]", "\n    resourceIdentifiers: [urn:b, urn:c]",
			"resourceIdentifiers: add urn:c\nresourceIdentifiers: remove urn:a",
			[]string{"removes urn:a: the app can no longer introspect tokens for it"}},
		"audiences of token exchange": {"\n    tokenExchangeAudiences: [urn:a, urn:b]",
			"\n    tokenExchangeAudiences: [urn:b, urn:c]",
			"tokenExchangeAudiences: add urn:c\ntokenExchangeAudiences: remove urn:a",
			[]string{"adds urn:c: the app may call it for every user who calls the app", "removes urn:a: token exchanges " +
				"for it will fail"}},
		"trusted peers": {"\n    trustedPeers: [a, b]", "\n    trustedPeers: [b, c]", "trustedPeers: add c\n" +
			"trustedPeers: remove a",
			[]string{"trusts c: with consent it gets ID tokens of users that this app takes as well",
				"no longer trusts a: its next ID tokens are not for this app, and sign-ins that ask for that will fail"}},
		"access": {"", "\n    access: {groups: [staff], emails: [ann@example.com]}", "access.groups: add staff\n" +
			"access.emails: add ann@example.com",
			[]string{"limits who may use the app: grants of all others can no longer be refreshed"}},
		"other access": {"\n    access: {groups: [staff]}", "\n    access: {groups: [staff], connectors: [local]}",
			"access.connectors: add local",
			[]string{"changes who may use the app: grants of those who no longer may can no longer be refreshed"}},
		"a second factor": {"", "\n    access: {mfa: required}", `access.mfa: "" -> "required"`,
			[]string{"asks users for a second factor: grants of those who signed in without one can no longer be refreshed"}},
		"a passkey": {"\n    access: {mfa: required}", "\n    access: {mfa: phishing-resistant}",
			`access.mfa: "required" -> "phishing-resistant"`,
			[]string{"asks users for a passkey: grants of those who signed in without one can no longer be refreshed"}},
		"no second factor": {"\n    access: {mfa: required}", "", `access.mfa: "required" -> ""`,
			[]string{"no longer asks users for a second factor, unless the server's configuration does"}},
		"access for all": {"\n    access: {groups: [staff]}", "", "access.groups: remove staff",
			[]string{"lets everybody who can sign in use the app"}},
		"what tokens tell": {"", "\n    accessTokenClaims: [email]\n    groupFilter: [a*]", "groupFilter: add a*\n" +
			"accessTokenClaims: add email", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.deployer()
			r.apply(d, with("app", c.was))
			r.grant(r.view("app").Client.ID, "threads:read")
			p := r.plan(d, with("app", c.will))
			var got []string
			for _, change := range p.Changes {
				got = append(got, change.Text)
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("changes:\n%s\nwant:\n%s", strings.Join(got, "\n"), c.want)
			}
			if !slices.Equal(p.Consequences, append([]string{}, c.says...)) {
				t.Errorf("consequences: %q\nwant: %q", p.Consequences, c.says)
			}
			if err := d.Apply(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			if again := r.plan(d, with("app", c.will)); again.Changed {
				t.Errorf("applied, and still: %+v", again.Changes)
			}
		})
	}
}

func TestAnotherRedirectHostIsAnotherSector(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, with("app", "\n    subjectType: pairwise"))
	p := r.plan(d, with("app", "\n    subjectType: pairwise", "app.example.com", "app.example.org"))
	if !slices.Contains(p.Consequences, "gives every user another sub: the app will take them for new users") {
		t.Errorf("%q", p.Consequences)
	}
}

// A client that signs with its own key has no secret, is given none, and keeps its id when it changes its mind.
func TestSecretAndOwnKeyInPlace(t *testing.T) {
	r := newRig(t).withFiles()
	d := r.deployer()
	r.run(d)
	r.apply(d, appYML("app"))
	r.awaitReady("app")
	first, secret := r.view("app").Client, r.secret("app")

	r.apply(d, with("app", signs))
	r.awaitReady("app")
	client := r.view("app").Client
	if client.ID != first.ID || len(client.Secrets) != 0 || client.JWKS == "" {
		t.Errorf("with its own key: %+v", client)
	}
	if _, err := d.Rotate(context.Background(), "app", RotateOptions{}); !errors.Is(err, ErrNoSecret) ||
		!strings.Contains(err.Error(), "private_key_jwt") {
		t.Errorf("rotate: %v", err)
	}
	if secrets, err := d.Secrets(context.Background(), "app"); err != nil || len(secrets) > 0 {
		t.Errorf("secrets: %v, %v", secrets, err)
	}
	for _, kind := range []string{"worker-web", "container-api"} {
		kind, name, _ := strings.Cut(kind, "-")
		if env := r.env("app", kind, name); env["OAUTH_CLIENT_ID"] != first.ID || env["OAUTH_CLIENT_SECRET"] != "" {
			t.Errorf("%s %s: %v", kind, name, env)
		}
	}

	r.apply(d, appYML("app"))
	r.awaitReady("app")
	client = r.view("app").Client
	if client.ID != first.ID || len(client.Secrets) != 1 || client.JWKS != "" || r.secret("app") == secret {
		t.Errorf("with a secret again: %+v", client)
	}
	if env := r.env("app", "worker", "web"); env["OAUTH_CLIENT_SECRET"] != r.secret("app") {
		t.Error("the worker has another secret")
	}
}

// A rotation under way ends with the secrets.
func TestOwnKeyDuringARotation(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("app"))
	if _, err := d.Rotate(context.Background(), "app", RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.apply(d, with("app", signs))
	if client := r.view("app").Client; len(client.Secrets) != 0 {
		t.Errorf("%d secrets", len(client.Secrets))
	}
	if _, err := d.Rotate(context.Background(), "app", RotateOptions{Compromised: true}); !errors.Is(err, ErrNoSecret) {
		t.Errorf("rotate: %v", err)
	}
}

func TestHookCannotSmuggleMetadata(t *testing.T) {
	client := func(field string, value any) amending { return amending{Client: map[string]any{field: value}} }
	secret := plugins.EnvValue{Source: plugins.SourceClientSecret}
	for name, c := range map[string]struct {
		hook amending
		code string
	}{
		"a grant type that is off": {client("grantTypes", []string{"authorization_code", oauth.GrantTokenExchange}),
			"grant_type"},
		"a grant type that is none":  {client("grantTypes", []string{"password"}), "grant_type"},
		"no way to authenticate":     {client("tokenEndpointAuthMethod", "none"), "auth_method"},
		"an unknown way":             {client("tokenEndpointAuthMethod", "tls_client_auth"), "wrong_value"},
		"keys that are none":         {client("jwks", "hunter2"), "wrong_type"},
		"keys with something behind": {client("jwks", `{"keys":[{"kty":"oct"}]} {}`), "wrong_type"},
		"a private key": {client("jwks",
			`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc","d":"hunter2"}]}`),
			"private_key"},
		"a symmetric key":    {client("jwks", `{"keys":[{"kty":"oct","k":"hunter2"}]}`), "private_key"},
		"keys by plain http": {client("jwksUri", "http://keys.example.com"), "url"},
		"a secret for its own key": {amending{Client: map[string]any{"tokenEndpointAuthMethod": "private_key_jwt",
			"jwksUri": "https://app.example.com/jwks"},
			Env: []plugins.TargetEnv{{Target: plugins.Target{Kind: plugins.TargetWorker, Name: "web"},
				Env: map[string]plugins.EnvValue{"X": secret}}}}, ""},
		"a negative age":              {client("defaultMaxAge", -1), "wrong_value"},
		"a logout page elsewhere":     {client("frontchannelLogoutUri", "https://evil.example.com"), "front_channel"},
		"a resource of nobody's kind": {client("resourceIdentifiers", []string{"api"}), "resource_identifier"},
		"unsigned ID tokens":          {client("idTokenSignedResponseAlg", "none"), "wrong_value"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).withAmending(c.hook)
			d := r.deployer(func(o *DeployerOptions) {
				o.Parsing.GrantTypes = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}
			})
			_, err := d.Plan(context.Background(), documents(t, appYML("app")))
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("repeats a secret: %v", err)
			}
			var denied *DeniedError
			if c.code == "" { // package plugins refuses the answer
				return
			}
			if !errors.As(err, &denied) || !slices.ContainsFunc(denied.Denials, func(d Denial) bool {
				return d.Code == c.code
			}) {
				t.Errorf("%v, want a denial with the code %s", err, c.code)
			}
		})
	}
}

// Whatever spelling a hook gives the keys, the record has the one that was checked.
func TestKeysOfHooksAreStoredAsChecked(t *testing.T) {
	const odd = "{ \"keys\" : [ {\"x\":\"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc\", \"crv\":\"X25519\",\n" +
		" \"crv\":\"Ed25519\", \"kty\":\"OKP\"} ] }"
	r := newRig(t).withAmending(amending{Client: map[string]any{"jwks": odd}})
	d := r.deployer()
	r.apply(d, appYML("app"))
	const want = `{"keys":[{"crv":"Ed25519","kty":"OKP","x":"KmXLKxMcVazSq2oGL6_sc1SuiL27d58bX_kCg0bwKgc"}]}`
	if got := r.view("app").Client.JWKS; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if p := r.plan(d, appYML("app")); p.Changed {
		t.Errorf("%+v", p.Changes)
	}
}

// An identifier that two could speak for would let one read the tokens that are meant for the other.
func TestResourceIdentifierBelongsToOne(t *testing.T) {
	speaks := func(app, identifier string) string { return with(app, "\n    resourceIdentifiers: ["+identifier+"]") }
	r := newRig(t)
	d := r.deployer(func(o *DeployerOptions) { o.ResourceServers = []string{"https://billing.example.com"} })
	r.apply(d, speaks("one", "https://api.example.com"))
	r.apply(d, speaks("one", "https://api.example.com, urn:one"))
	for name, manifest := range map[string]string{
		"app one":                                speaks("two", "https://api.example.com"),
		"a resource server of the configuration": speaks("two", "https://billing.example.com"),
		"this server itself":                     speaks("two", r.opts.Issuer),
		"app two":                                speaks("two", "urn:two") + "---\n" + speaks("three", "urn:two"),
		// In another spelling it is the same one.
		"app one, as it writes it": speaks("two", "HTTPS://api.example.com:443/"),
	} {
		var denied *DeniedError
		_, err := d.Plan(context.Background(), documents(t, manifest))
		if !errors.As(err, &denied) || len(denied.Denials) != 1 || denied.Denials[0].Code != "resource_taken" ||
			!strings.Contains(err.Error(), "belongs to "+strings.TrimSuffix(name, ", as it writes it")+",") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.apply(d, appYML("one"))
	r.apply(d, speaks("two", "https://api.example.com"))
}

// Two plans that were made before either was applied: the second is refused whole, and is told who was first.
func TestThreatOneResourceIdentifierPlannedForTwo(t *testing.T) {
	r := newRig(t)
	d, other := r.deployer(), r.deployer()
	speaks := func(app string) string { return with(app, "\n    resourceIdentifiers: [https://api.example.com]") }
	r.apply(d, appYML("two"))
	first, second := r.plan(d, speaks("one")), r.plan(other, speaks("two"))
	if err := d.Apply(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	before := r.etcd.Dump()
	err := other.Apply(context.Background(), second)
	if !errors.Is(err, storage.ErrConflict) || !strings.Contains(err.Error(), "https://api.example.com belongs to app "+
		"one since this plan was made") {
		t.Errorf("%v", err)
	}
	if r.etcd.Dump() != before {
		t.Error("the plan that was refused has written something")
	}
	var denied *DeniedError
	if _, err := other.Plan(context.Background(), documents(t, speaks("two"))); !errors.As(err, &denied) ||
		!strings.Contains(err.Error(), "belongs to app one,") {
		t.Errorf("planned again: %v", err)
	}
}

func TestSectorIsAskedAboutWhenItIsNew(t *testing.T) {
	const sector = "\n    subjectType: pairwise\n    sectorIdentifierUri: https://sector.example.com/apps.json"
	var asked []string
	refuse := errors.New("the document does not list the redirect URI")
	var answer error
	r := newRig(t)
	d := r.deployer(func(o *DeployerOptions) {
		o.CheckSector = func(_ context.Context, uri string, redirects []string) error {
			asked = append(asked, uri+" "+strings.Join(redirects, " "))
			return answer
		}
	})
	r.apply(d, appYML("app"))
	answer = refuse
	_, err := d.Plan(context.Background(), documents(t, with("app", sector)))
	var denied *DeniedError
	if !errors.As(err, &denied) || denied.Denials[0].Code != "sector_identifier" ||
		!strings.Contains(err.Error(), refuse.Error()) {
		t.Errorf("%v", err)
	}
	answer = nil
	r.apply(d, with("app", sector))
	answer = refuse // the address has gone away, which is no reason to refuse a deployment that changes nothing of it
	r.apply(d, with("app", sector, "My App", "Your App"))
	if _, err := d.Plan(context.Background(), documents(t, with("app", sector, "app.example.com",
		"app.example.org"))); !errors.As(err, &denied) {
		t.Errorf("another redirect URI: %v", err)
	}
	want := []string{
		"https://sector.example.com/apps.json https://app.example.com/callback", "https://sector.example.com/apps.json " +
			"https://app.example.com/callback",
		"https://sector.example.com/apps.json https://app.example.org/callback",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
}

func TestGrantTypesAreThoseOfTheServer(t *testing.T) {
	text := []byte(with("app", "\n    grantTypes: [authorization_code, client_credentials]"))
	for name, c := range map[string]struct {
		on   []string
		want int
	}{
		"no server at hand": {nil, 0}, "on": {[]string{oauth.GrantAuthorizationCode, oauth.GrantClientCredentials}, 0},
		"off": {[]string{oauth.GrantAuthorizationCode}, 1},
	} {
		_, faults := Parse("app.yml", text, Options{GrantTypes: c.on})
		if len(faults.Errors()) != c.want || c.want > 0 && (faults[0].Code != "grant-type" ||
			!strings.Contains(faults[0].Message, "oauth2.grantTypes")) {
			t.Errorf("%s: %v", name, faults)
		}
	}
}

func TestPlanSaysHowANewClientGetsTokens(t *testing.T) {
	r := newRig(t)
	p := r.plan(r.deployer(), with("app", signs+"\n    grantTypes: [authorization_code, client_credentials]"))
	const want = `register client "My App" with scopes threads:read runs:write, grant types authorization_code client_credentials, authenticating with its own key (private_key_jwt)`
	if p.Changes[1].Text != want {
		t.Errorf("got  %s\nwant %s", p.Changes[1].Text, want)
	}
}

// A trusted peer may come later, and whoever misspells one is warned. What is no name of an app is refused.
func TestTrustedPeersThatAreNotThere(t *testing.T) {
	r := newRig(t)
	d := r.deployer()
	r.apply(d, appYML("here"))
	docs := documents(t, with("app", "\n    trustedPeers: [here, later, along]")+"\n---\n"+appYML("along"))
	plans, err := d.Plan(t.Context(), docs)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range plans[0].Warnings {
		if w.Code == "unknown_app" {
			got = append(got, w.Path+": "+w.Message)
		}
	}
	if want := []string{"spec.oauth.trustedPeers[1]: later is not an app here yet: if somebody applies " +
		"one of that name, it is trusted"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	_, faults := Parse("app.yml", []byte(with("app", "\n    trustedPeers: [here, Client_ID, here]")), Options{})
	if text := fmt.Sprint(faults); len(faults) != 2 ||
		!strings.Contains(text, "trustedPeers[1] must be the name of an app") ||
		!strings.Contains(text, "trustedPeers[2] is in the list twice") {
		t.Error(text)
	}
}

func TestLoopbackOfTheServerIsWarnedOfOutsideDev(t *testing.T) {
	const local = "\n    jwksUri: http://localhost:3000/jwks\n    backchannelLogoutUri: http://127.0.0.1:3000/logout"
	r := newRig(t)
	for dev, want := range map[bool][]string{false: {"spec.oauth.jwksUri", "spec.oauth.backchannelLogoutUri"}, true: nil} {
		p := r.plan(r.deployer(func(o *DeployerOptions) { o.Dev = dev }), with("app", local))
		var got []string
		for _, w := range p.Warnings {
			if w.Code == "loopback_address" {
				got = append(got, w.Path)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("dev %t: %q", dev, got)
		}
	}
}

// spec.oauth.resource is enough for an app that is a resource server and nothing else, and takes part in all that a
// resource identifier does.
func TestOnlyAResourceServer(t *testing.T) {
	only := func(app, more string) string {
		return "apiVersion: takos.dev/v1alpha1\nkind: App\nmetadata: {name: " + app + "}\nspec:\n  version: 1.0.0\n" +
			"  oauth:\n    " + more + "\n"
	}
	r := newRig(t)
	d := r.deployer()
	p := r.plan(d, only("mcp", "resource: https://mcp.example.com"))
	if len(p.Changes) != 2 || p.Changes[1].Text != "register resource server https://mcp.example.com" {
		t.Errorf("%+v", p.Changes)
	}
	r.apply(d, only("mcp", "resource: https://mcp.example.com"))
	c := r.view("mcp").Client
	if !c.OnlyResource() || len(c.Secrets) != 1 || len(c.RegisteredGrants()) > 0 {
		t.Errorf("%+v", c)
	}
	var denied *DeniedError
	_, err := d.Plan(context.Background(), documents(t, only("other", "resource: https://mcp.example.com/")))
	if !errors.As(err, &denied) || denied.Denials[0].Path != "spec.oauth.resource" ||
		!strings.Contains(err.Error(), "belongs to app mcp,") {
		t.Errorf("%v", err)
	}
	for more, want := range map[string]string{
		"resource: mcp.example.com": "resource-identifier spec.oauth.resource",
		"resource: \"\"":            "required spec.oauth.resource",
		"resource: https://mcp.example.com\n    public: true":                     "public-client spec.oauth.resource",
		"resource: https://mcp.example.com\n    grantTypes: [client_credentials]": "required spec.oauth.clientName",
		"resource: https://mcp.example.com\n    redirectUris: [https://a.test/]":  "required spec.oauth.clientName",
	} {
		_, faults := Parse("app.yml", []byte(only("mcp", more)), Options{})
		var got []string
		for _, f := range faults.Errors() {
			got = append(got, f.Code+" "+f.Path)
		}
		if !slices.Contains(got, want) {
			t.Errorf("%s: %q", more, got)
		}
	}
	env := "\n  workers: {web: {env: {OAUTH_RESOURCE: x}}}"
	for more, collides := range map[string]bool{
		"resource: https://mcp.example.com\n    autoEnv: true":                                                  true,
		"clientName: A\n    redirectUris: [https://a.test/]\n    scopes: [\"threads:read\"]\n    autoEnv: true": false,
	} {
		if _, faults := Parse("app.yml", []byte(only("mcp", more+env)), Options{}); (faults.Err() != nil) != collides {
			t.Errorf("%s: %v", more, faults.Err())
		}
	}
}
