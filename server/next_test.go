package server

import (
	"slices"
	"testing"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

func TestNext(t *testing.T) {
	start := time.UnixMilli(1_800_000_000_000)
	now := start.Add(time.Minute)
	seconds := func(n int64) *int64 { return &n }
	user, disabled := &storage.User{ID: "ann"}, &storage.User{ID: "ann", Disabled: true}
	session := func(at time.Time) *storage.Session { return &storage.Session{UserID: "ann", AuthTime: at} }
	before, during := session(start.Add(-time.Hour)), session(start.Add(time.Second))
	client := &storage.Client{Client: oauth.Client{ClientName: "App"}}
	allowed := func(a storage.Allowance, scopes ...string) *storage.Consent {
		a.Scopes = scopes
		return &storage.Consent{Scopes: scopes, Allowances: []storage.Allowance{a}}
	}
	consent := func(scopes ...string) *storage.Consent {
		return allowed(storage.Allowance{Name: "App", Host: "app.test"}, scopes...)
	}
	ask := func(prompt ...string) *AuthRequest {
		return &AuthRequest{RedirectURI: "https://app.test/cb", Scopes: []string{"a", "b"}, Prompt: prompt,
			Started: start.UnixNano()}
	}
	within := func(age *int64, prompt ...string) *AuthRequest {
		a := ask(prompt...)
		a.MaxAge = age
		return a
	}
	named := func(user string, prompt ...string) *AuthRequest {
		a := ask(prompt...)
		a.Users = []string{"carol", user}
		return a
	}
	byName := func(claims ...string) *AuthRequest {
		a := ask()
		a.Claims = &claimsRequest{IDToken: claimWishes{}}
		for _, name := range claims {
			a.Claims.IDToken[name] = claimWish{}
		}
		return a
	}
	at := func(uri string, resources ...string) *AuthRequest {
		a := ask()
		a.RedirectURI, a.Resources = uri, resources
		return a
	}
	signIn, done := decision{step: stepSignIn}, decision{step: stepDone}
	asks := func(scopes ...string) decision { return decision{step: stepConsent, fresh: scopes} }
	refuse := func(code string) decision { return decision{step: stepRefuse, refused: &oauth.Error{Code: code}} }

	for _, c := range []struct {
		rule    string
		request *AuthRequest
		there   storage.Presence
		allowed bool
		want    decision
	}{
		{"nobody", ask(), storage.Presence{}, false, signIn},
		{"nobody, and nothing can be allowed", ask(), storage.Presence{}, true, signIn},
		{"a user without a session", ask(), storage.Presence{User: user, Consent: consent("a", "b")}, true, signIn},
		{"a session without a user", ask(), storage.Presence{Session: during}, true, signIn},
		{"a disabled user", ask(), storage.Presence{Session: during, User: disabled, Consent: consent("a", "b")}, true,
			signIn},
		{"signed in", ask(), storage.Presence{Session: before, User: user}, false, asks("a", "b")},
		{"something is new", ask(), storage.Presence{Session: before, User: user, Consent: consent("a", "c")},
			false, asks("b")},
		{"all was allowed", ask(), storage.Presence{Session: before, User: user, Consent: consent("c", "b", "a")},
			false, done},
		{"just allowed", ask(), storage.Presence{Session: before, User: user}, true, done},

		{"none, nobody", ask("none"), storage.Presence{}, false, refuse(oauth.CodeLoginRequired)},
		{"none, disabled", ask("none"), storage.Presence{Session: before, User: disabled}, false,
			refuse(oauth.CodeLoginRequired)},
		{"none, signed in", ask("none"), storage.Presence{Session: before, User: user}, false,
			refuse(oauth.CodeConsentRequired)},
		{"none, something is new", ask("none"), storage.Presence{Session: before, User: user, Consent: consent("a")}, false,
			refuse(oauth.CodeConsentRequired)},
		{"none, all was allowed", ask("none"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")},
			false, done},
		{"none, too old", within(seconds(60), "none"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, refuse(oauth.CodeLoginRequired)},

		{"login, signed in before", ask("login"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")},
			false, signIn},
		{"login, signed in before, just allowed", ask("login"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, true, signIn},
		{"login, signed in for this", ask("login"), storage.Presence{Session: during, User: user, Consent: consent("a", "b")},
			false, done},
		{"login, signed in a microsecond before", ask("login"),
			storage.Presence{Session: session(start.Add(-time.Microsecond)), User: user, Consent: consent("a", "b")}, false,
			signIn},
		{"login, in the same moment", ask("login"), storage.Presence{Session: session(start), User: user,
			Consent: consent("a", "b")}, false, done},
		{"select_account, signed in before", ask("select_account"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, signIn},
		{"select_account, signed in for this", ask("select_account"), storage.Presence{Session: during, User: user},
			false, asks("a", "b")},
		{"consent, all was allowed", ask("consent"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, asks()},
		{"consent, just allowed", ask("consent"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")},
			true, done},
		{"login and consent, in that order", ask("login", "consent"), storage.Presence{Session: before, User: user}, false,
			signIn},
		{"login and consent, signed in for this", ask("login", "consent"), storage.Presence{Session: during, User: user,
			Consent: consent("a", "b")}, false, asks()},

		{"max_age, young enough", within(seconds(3660)), storage.Presence{Session: before, User: user}, true, done},
		{"max_age, a second too old", within(seconds(3659)), storage.Presence{Session: before, User: user}, true, signIn},
		{"max_age 0, signed in before", within(seconds(0)), storage.Presence{Session: before, User: user}, true, signIn},
		{"max_age 0, signed in for this", within(seconds(0)), storage.Presence{Session: during, User: user}, true, done},

		{"named user, signed in", named("ann"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")},
			false, done},
		{"named user, nobody is signed in", named("ann"), storage.Presence{}, false, signIn},
		{"named user, another is signed in", named("bob"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, signIn},
		{"named user, another has just allowed", named("bob"), storage.Presence{Session: before, User: user}, true, signIn},
		{"named user, another signed in for this", named("bob"), storage.Presence{Session: during, User: user,
			Consent: consent("a", "b")}, false, refuse(oauth.CodeLoginRequired)},
		{"named user, another signed in for this and allowed", named("bob"), storage.Presence{Session: during, User: user},
			true, refuse(oauth.CodeLoginRequired)},
		{"named user, none, signed in", named("ann", "none"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, done},
		{"named user, none, another is signed in", named("bob", "none"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, refuse(oauth.CodeLoginRequired)},
		{"named user, none, another who allowed nothing", named("bob", "none"), storage.Presence{Session: before, User: user},
			false, refuse(oauth.CodeLoginRequired)},
		{"named user, login, another is signed in", named("bob", "login"), storage.Presence{Session: before, User: user},
			false, signIn},

		{"claims by name", byName("email", "phone_number"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, asks("email", "phone")},
		{"claims by name, of a scope that was allowed", byName("email", "email_verified"), storage.Presence{Session: before,
			User: user, Consent: consent("a", "b", "email")}, false, done},
		{"another host", at("https://other.test/cb"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, asks("a", "b")},
		{"another page of the host", at("https://APP.test/other?x"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, done},
		{"another port", at("https://app.test:8443/cb"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, asks("a", "b")},
		{"another name", ask(), storage.Presence{Session: before, User: user,
			Consent: allowed(storage.Allowance{Name: "Bank", Host: "app.test"}, "a", "b")}, false, asks("a", "b")},
		{"any port of this machine", at("http://127.0.0.1:2/"), storage.Presence{Session: before, User: user,
			Consent: allowed(storage.Allowance{Name: "App", Host: "localhost"}, "a", "b")}, false, done},
		{"a resource", at("https://app.test/cb", "urn:r"), storage.Presence{Session: before, User: user,
			Consent: consent("a", "b")}, false, asks("a", "b")},
		{"a resource that was allowed", at("https://app.test/cb", "urn:r"), storage.Presence{Session: before, User: user,
			Consent: allowed(storage.Allowance{Name: "App", Host: "app.test", Resource: "urn:r"}, "a", "b")}, false, done},
		{"one resource more", at("https://app.test/cb", "urn:r", "urn:s"), storage.Presence{Session: before, User: user,
			Consent: allowed(storage.Allowance{Name: "App", Host: "app.test", Resource: "urn:r"}, "a", "b")},
			false, asks("a", "b")},
		{"everywhere after a resource", ask(), storage.Presence{Session: before, User: user,
			Consent: allowed(storage.Allowance{Name: "App", Host: "app.test", Resource: "urn:r"}, "a", "b")},
			false, asks("a", "b")},
		{"a consent of an older version", ask(), storage.Presence{Session: before, User: user,
			Consent: &storage.Consent{Scopes: []string{"a", "b"}}}, false, asks("a", "b")},

		{"claims by name, just allowed", byName("email"), storage.Presence{Session: before, User: user}, true, done},
	} {
		got := next(client, c.request, c.there, circumstances{allowed: c.allowed, now: now})
		if got.step != c.want.step || codeOf(got) != codeOf(c.want) || !slices.Equal(got.fresh, c.want.fresh) ||
			got.refused != nil && (got.refused.Description == "" || got.refused.Rule == "") {
			t.Errorf("%s: %+v, want %+v", c.rule, got, c.want)
		}
	}
}

// What is demanded of a sign-in, by whom, and what comes of it.
func TestNextDemandsFactors(t *testing.T) {
	start := time.UnixMilli(1_800_000_000_000)
	totp := &storage.Factors{TOTP: storage.TOTP{Secret: []byte("x")}}
	passkey := &storage.Factors{Passkeys: make([]storage.Passkey, 1)}
	nothing := &storage.Factors{}
	by := func(amr ...string) *storage.Session {
		return &storage.Session{AuthTime: start.Add(-time.Hour), AMR: amr}
	}
	pwd, otp, pop := by("pwd"), by("pwd", "otp", "mfa"), by("pop", "user", "mfa")
	upstream := func(acr string) *storage.Session { return &storage.Session{AuthTime: start.Add(-time.Hour), ACR: acr} }
	ask := func(change func(*AuthRequest)) *AuthRequest {
		a := &AuthRequest{RedirectURI: "https://app.test/cb", Started: start.UnixNano()}
		if change != nil {
			change(a)
		}
		return a
	}
	plain := ask(nil)
	none := ask(func(a *AuthRequest) { a.Prompt = []string{"none"} })
	here := ask(func(a *AuthRequest) { a.Here, a.RedirectURI = "/account/totp", "" })
	wishes := func(classes ...string) *AuthRequest { return ask(func(a *AuthRequest) { a.Classes = classes }) }
	needs := func(classes ...string) *AuthRequest { return ask(func(a *AuthRequest) { a.ACRs = classes }) }
	silently := func(a *AuthRequest) *AuthRequest { a.Prompt = []string{"none"}; return a }
	required, resistant := demanding(oauth.MFARequired), demanding(oauth.MFAPhishingResistant)
	everybody := Demands{Everybody: oauth.AssuranceMFA}
	admins := Demands{Groups: map[string]oauth.Assurance{"admins": oauth.AssurancePhishingResistant}}
	member := &storage.User{ID: "ann", Groups: storage.NamesOf([]string{"staff", "admins"})}
	other := &storage.User{ID: "ann", Groups: storage.NamesOf([]string{"staff", "Admins"})}

	for _, c := range []struct {
		rule    string
		client  *storage.Client
		request *AuthRequest
		session *storage.Session
		user    *storage.User
		demands Demands
		factors *storage.Factors
		want    step
		code    string
	}{
		{"nothing is demanded", demanding(""), plain, pwd, other, Demands{}, nil, stepDone, ""},
		{"the client demands, nobody has looked", required, plain, pwd, other, Demands{}, nil, stepFactor, ""},
		{"the client demands, a code", required, plain, pwd, other, Demands{}, totp, stepFactor, ""},
		{"the client demands, a passkey", required, plain, pwd, other, Demands{}, passkey, stepFactor, ""},
		{"the client demands, nothing", required, plain, pwd, other, Demands{}, nothing, stepEnrol, ""},
		{"the client demands, and has it", required, plain, otp, other, Demands{}, nil, stepDone, ""},
		{"the client demands, and has more", required, plain, pop, other, Demands{}, nil, stepDone, ""},
		{"a passkey is demanded, a code was given", resistant, plain, otp, other, Demands{}, totp, stepEnrol, ""},
		{"a passkey is demanded, a code was given, and there is one", resistant, plain, otp, other, Demands{},
			passkey, stepFactor, ""},
		{"a passkey is demanded, and was used", resistant, plain, pop, other, Demands{}, nil, stepDone, ""},
		{"silently", required, none, pwd, other, Demands{}, nil, stepRefuse, oauth.CodeLoginRequired},
		{"silently, and has it", required, none, otp, other, Demands{}, nil, stepDone, ""},
		{"of everybody", demanding(""), plain, pwd, other, everybody, totp, stepFactor, ""},
		{"of everybody, silently", demanding(""), none, pwd, other, everybody, nil, stepRefuse, oauth.CodeLoginRequired},
		{"of a group", demanding(""), plain, otp, member, admins, passkey, stepFactor, ""},
		{"of a group of another name", demanding(""), plain, pwd, other, admins, nil, stepDone, ""},
		{"of a group, at the front page", &storage.Client{}, ask(func(a *AuthRequest) { a.RedirectURI = "" }), pwd, member,
			admins, nothing, stepEnrol, ""},
		{"at a page of the account, nothing yet", &storage.Client{}, here, pwd, member, admins, nothing, stepDone, ""},
		{"at a page of the account, what there is", &storage.Client{}, here, pwd, member, admins, passkey, stepFactor, ""},
		{"a sign-in of which nothing is known", required, plain, upstream(""), other, Demands{}, totp, stepFactor, ""},
		{"what an identity provider told", required, plain, by("hwk", "mfa"), other, Demands{}, nil, stepDone, ""},
		{"a class that only an identity provider knows", required, plain, upstream("urn:gold"), other, Demands{},
			nothing, stepEnrol, ""},
		{"the class of an identity provider", resistant, plain, upstream("phr"), other, Demands{}, nil, stepDone, ""},

		{"acr_values", demanding(""), wishes(oauth.ACRMFA), pwd, other, Demands{}, totp, stepFactor, ""},
		{"acr_values, nothing", demanding(""), wishes(oauth.ACRMFA), pwd, other, Demands{}, nothing, stepEnrol, ""},
		{"acr_values, the lowest will do", demanding(""), wishes("phr", oauth.ACRMFA), pwd, other, Demands{},
			totp, stepFactor, ""},
		{"acr_values, one of them is there", demanding(""), wishes("phr", oauth.ACRPassword), pwd, other, Demands{},
			nothing, stepDone, ""},
		{"acr_values, silently", demanding(""), silently(wishes(oauth.ACRMFA)), pwd, other, Demands{}, nil, stepRefuse,
			oauth.CodeUnmetAuthentication},
		{"acr_values that nobody knows", demanding(""), silently(wishes("urn:x")), pwd, other, Demands{}, nil, stepDone, ""},
		{"acr_values, the client demands more", resistant, silently(wishes(oauth.ACRMFA)), pwd, other, Demands{}, nil,
			stepRefuse, oauth.CodeLoginRequired},
		{"acr_values, the request demands more", required, silently(wishes("phr")), pwd, other, Demands{}, nil, stepRefuse,
			oauth.CodeUnmetAuthentication},
		{"essential", demanding(""), needs(oauth.ACRMFA), pwd, other, Demands{}, totp, stepFactor, ""},
		{"essential, one that the identity provider has", demanding(""), needs("urn:gold"), upstream("urn:gold"), other,
			Demands{}, nil, stepDone, ""},
		{"essential, one that nobody here has", demanding(""), needs("urn:gold"), pwd, other, Demands{}, nil, stepSignIn, ""},
		{"essential, silently", demanding(""), silently(needs("urn:gold")), pwd, other, Demands{}, nil, stepRefuse,
			oauth.CodeUnmetAuthentication},
		{"essential, a password, and nothing is known", demanding(""), needs(oauth.ACRPassword), upstream(""), other,
			Demands{}, totp, stepSignIn, ""},
		{"essential, either", demanding(""), needs("urn:gold", oauth.ACRMFA), pwd, other, Demands{}, totp, stepFactor, ""},
	} {
		got := next(c.client, c.request, storage.Presence{Session: c.session, User: c.user},
			circumstances{demands: c.demands, factors: c.factors, passkeys: true, now: start})
		if got.step != c.want || got.step == stepRefuse && codeOf(got) != c.code {
			t.Errorf("%s: %+v", c.rule, got)
		}
	}
	peer := demanding(oauth.MFARequired)
	got := next(demanding(""), plain, storage.Presence{Session: pwd, User: other},
		circumstances{peers: []*storage.Client{peer}, now: start})
	if got.step != stepFactor || got.least != oauth.AssuranceMFA {
		t.Errorf("an ID token for a peer that demands a factor: %+v", got)
	}
}

func demanding(mfa string) *storage.Client {
	return &storage.Client{Client: oauth.Client{ClientMetadata: oauth.ClientMetadata{AccessMFA: mfa}}}
}

func codeOf(d decision) string {
	if d.refused == nil {
		return ""
	}
	return d.refused.Code
}
