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
	consent := func(scopes ...string) *storage.Consent { return &storage.Consent{Scopes: scopes} }
	ask := func(prompt ...string) *AuthRequest {
		return &AuthRequest{Scopes: []string{"a", "b"}, Prompt: prompt, Started: start.UnixNano()}
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
		{"a disabled user", ask(), storage.Presence{Session: during, User: disabled, Consent: consent("a", "b")}, true, signIn},
		{"signed in", ask(), storage.Presence{Session: before, User: user}, false, asks("a", "b")},
		{"something is new", ask(), storage.Presence{Session: before, User: user, Consent: consent("a", "c")}, false, asks("b")},
		{"all was allowed", ask(), storage.Presence{Session: before, User: user, Consent: consent("c", "b", "a")}, false, done},
		{"just allowed", ask(), storage.Presence{Session: before, User: user}, true, done},

		{"none, nobody", ask("none"), storage.Presence{}, false, refuse(oauth.CodeLoginRequired)},
		{"none, disabled", ask("none"), storage.Presence{Session: before, User: disabled}, false, refuse(oauth.CodeLoginRequired)},
		{"none, signed in", ask("none"), storage.Presence{Session: before, User: user}, false, refuse(oauth.CodeConsentRequired)},
		{"none, something is new", ask("none"), storage.Presence{Session: before, User: user, Consent: consent("a")}, false, refuse(oauth.CodeConsentRequired)},
		{"none, all was allowed", ask("none"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, done},
		{"none, too old", within(seconds(60), "none"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, refuse(oauth.CodeLoginRequired)},

		{"login, signed in before", ask("login"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, signIn},
		{"login, signed in before, just allowed", ask("login"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, true, signIn},
		{"login, signed in for this", ask("login"), storage.Presence{Session: during, User: user, Consent: consent("a", "b")}, false, done},
		{"login, signed in a microsecond before", ask("login"), storage.Presence{Session: session(start.Add(-time.Microsecond)), User: user, Consent: consent("a", "b")}, false, signIn},
		{"login, in the same moment", ask("login"), storage.Presence{Session: session(start), User: user, Consent: consent("a", "b")}, false, done},
		{"select_account, signed in before", ask("select_account"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, signIn},
		{"select_account, signed in for this", ask("select_account"), storage.Presence{Session: during, User: user}, false, asks("a", "b")},
		{"consent, all was allowed", ask("consent"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, asks()},
		{"consent, just allowed", ask("consent"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, true, done},
		{"login and consent, in that order", ask("login", "consent"), storage.Presence{Session: before, User: user}, false, signIn},
		{"login and consent, signed in for this", ask("login", "consent"), storage.Presence{Session: during, User: user, Consent: consent("a", "b")}, false, asks()},

		{"max_age, young enough", within(seconds(3660)), storage.Presence{Session: before, User: user}, true, done},
		{"max_age, a second too old", within(seconds(3659)), storage.Presence{Session: before, User: user}, true, signIn},
		{"max_age 0, signed in before", within(seconds(0)), storage.Presence{Session: before, User: user}, true, signIn},
		{"max_age 0, signed in for this", within(seconds(0)), storage.Presence{Session: during, User: user}, true, done},

		{"named user, signed in", named("ann"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, done},
		{"named user, nobody is signed in", named("ann"), storage.Presence{}, false, signIn},
		{"named user, another is signed in", named("bob"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, signIn},
		{"named user, another has just allowed", named("bob"), storage.Presence{Session: before, User: user}, true, signIn},
		{"named user, another signed in for this", named("bob"), storage.Presence{Session: during, User: user, Consent: consent("a", "b")}, false, refuse(oauth.CodeLoginRequired)},
		{"named user, another signed in for this and allowed", named("bob"), storage.Presence{Session: during, User: user}, true, refuse(oauth.CodeLoginRequired)},
		{"named user, none, signed in", named("ann", "none"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, done},
		{"named user, none, another is signed in", named("bob", "none"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, refuse(oauth.CodeLoginRequired)},
		{"named user, none, another who allowed nothing", named("bob", "none"), storage.Presence{Session: before, User: user}, false, refuse(oauth.CodeLoginRequired)},
		{"named user, login, another is signed in", named("bob", "login"), storage.Presence{Session: before, User: user}, false, signIn},

		{"claims by name", byName("email", "phone_number"), storage.Presence{Session: before, User: user, Consent: consent("a", "b")}, false, asks("email", "phone")},
		{"claims by name, of a scope that was allowed", byName("email", "email_verified"), storage.Presence{Session: before, User: user, Consent: consent("a", "b", "email")}, false, done},
		{"claims by name, just allowed", byName("email"), storage.Presence{Session: before, User: user}, true, done},
	} {
		got := next(c.request, c.there, c.allowed, now)
		if got.step != c.want.step || codeOf(got) != codeOf(c.want) || !slices.Equal(got.fresh, c.want.fresh) ||
			got.refused != nil && (got.refused.Description == "" || got.refused.Rule == "") {
			t.Errorf("%s: %+v, want %+v", c.rule, got, c.want)
		}
	}
}

func codeOf(d decision) string {
	if d.refused == nil {
		return ""
	}
	return d.refused.Code
}
