package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/factor"
	"github.com/warifu/warifu/storage"
)

// world is what the admin API asks of the rest of the program about people. Its documents are JSON.
type world struct {
	mu    sync.Mutex
	mails bool
	told  []string
}

type document struct {
	ID     string   `json:"userID"`
	Email  string   `json:"email"`
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
	Hash   string   `json:"hash"`
}

func (w *world) Read(docs []admin.Document) ([]admin.Person, error) {
	var people []admin.Person
	for _, doc := range docs {
		var list []document
		if err := json.Unmarshal([]byte(doc.Content), &list); err != nil {
			return nil, admin.InvalidPeople([]admin.Fault{{File: doc.Name, Message: err.Error(), Severity: "error"}})
		}
		for i, d := range list {
			people = append(people, admin.Person{Hash: d.Hash, User: storage.User{ID: d.ID, Email: d.Email, Name: d.Name,
				Groups: storage.NamesOf(d.Groups)}, Fault: func(key, code, message string) admin.Fault {
				return admin.Fault{File: doc.Name, Line: i + 1, Path: key, Code: code, Message: message, Severity: "error"}
			}})
		}
	}
	return people, nil
}

func (w *world) Configured(login string) (string, bool) {
	return "boss", storage.NormalLogin(login) == "boss@example.com"
}

func (w *world) MakeLink(_ context.Context, a *storage.Account, kind string, valid time.Duration) (string, error) {
	return fmt.Sprintf("https://id.test/welcome?%s-%s-%s", a.User.ID, kind, valid), nil
}

func (w *world) SendLink(u *storage.User, kind, _ string, _ time.Duration) bool {
	w.tell("mail " + kind + " to " + u.ID)
	return w.mails
}

func (w *world) Tell(u *storage.User, what admin.Told) { w.tell(string(what) + " of " + u.ID) }

func (w *world) tell(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, what)
}

func (w *world) was(what string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.told, what)
}

// peopleAPI is an admin API with people.
type peopleAPI struct {
	http.Handler
	t     *testing.T
	world *world
	store *storage.Store
	log   *bytes.Buffer
	ended atomic.Int64
}

func newPeopleAPI(t *testing.T) *peopleAPI {
	p := &peopleAPI{t: t, world: &world{}}
	p.Handler, _, p.log = newAPI(t, func(c *admin.Config) {
		c.People, c.Links, p.store = p.world, p.world, c.Store
		c.SessionsEnded = func() { p.ended.Add(1) }
	})
	return p
}

// call makes a request, and decodes the reply into out unless that is nil.
func (p *peopleAPI) call(method, path string, body any, status int, out any) http.Header {
	p.t.Helper()
	w := httptest.NewRecorder()
	text, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(p.t.Context(), method, path, bytes.NewReader(text))
	r.Header.Set("Content-Type", "application/json")
	p.ServeHTTP(w, r)
	if w.Code != status {
		p.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			p.t.Fatalf("%s %s: %v: %s", method, path, err, w.Body)
		}
	}
	return w.Result().Header
}

func (p *peopleAPI) apply(status int, out any, people ...document) {
	p.t.Helper()
	text, _ := json.Marshal(people)
	p.call("POST", "/v1/users", map[string]any{"documents": []admin.Document{{Name: "people.json",
		Content: string(text)}}},
		status, out)
}

func TestPeopleAreAppliedByIDOrByLogin(t *testing.T) {
	p := newPeopleAPI(t)
	ctx := t.Context()
	for _, u := range []storage.User{{ID: "boss", Connector: "local", Email: "boss@example.com"},
		{ID: "gone", Connector: "local", Email: "gone@example.com", Disabled: true}} {
		if _, err := p.store.PutUser(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.store.ArriveUser(ctx, storage.Arrival{User: storage.User{ID: "there", Connector: "ldap",
		UpstreamID: "t",
		Email:      "there@example.com"}}); err != nil {
		t.Fatal(err)
	}
	first, second := factor.HashPassword("one of them"), factor.HashPassword("another one")
	var out admin.UsersApplied
	says := func(want ...string) {
		t.Helper()
		var got []string
		for _, u := range out.Users {
			got = append(got, fmt.Sprint(u.Login, " ", u.Change, " ", u.Changes, " ", u.Ends))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	ann, ben := document{ID: "ann", Email: "ann@example.com", Hash: first}, document{Email: "ben@example.com", Name: "Ben"}
	p.apply(200, &out, ann, ben)
	says("ann@example.com created [] false", "ben@example.com created [] false")
	id := out.Users[1].ID
	if len(id) != 20 {
		t.Errorf("id %q", id)
	}
	p.apply(200, &out, ann, ben)
	says("ann@example.com unchanged [] false", "ben@example.com unchanged [] false")
	if out.Users[1].ID != id {
		t.Errorf("%q, and then %q", id, out.Users[1].ID)
	}

	// The hash of the file is the password once, whatever the user does with it.
	account, err := p.store.Account(ctx, "ann")
	if err != nil {
		t.Fatal(err)
	}
	own := account.Factors.Clone()
	own.Password = storage.Password{Hash: factor.HashPassword("my own choice"), At: time.Now()}
	if _, _, err := p.store.ChangeFactors(ctx, account, storage.FactorChange{Next: own}); err != nil {
		t.Fatal(err)
	}
	p.apply(200, &out, ann)
	says("ann@example.com unchanged [] false")
	ann.Hash, ann.Groups, ann.Email = second, []string{"staff"}, "Ann@example.com"
	p.apply(200, &out, ann)
	says("Ann@example.com changed [email groups password] true")
	if now, err := p.store.AccountByLogin(ctx, "ann@example.com"); err != nil || now.Factors.Password.Hash != second ||
		now.User.Stands(account.User.Term) {
		t.Errorf("%+v %v", now, err)
	}
	p.apply(200, &out, document{ID: "gone", Email: "gone@example.com"})
	says("gone@example.com changed [kept here] false")

	// Whose account is kept elsewhere, and who has the login of somebody else, is told at once; nobody is changed.
	var wrong admin.Problem
	p.apply(422, &wrong, document{ID: "boss", Email: "new@example.com"}, document{ID: "there", Email: "there@example.com"},
		document{ID: "eve", Email: "BOSS@example.com"}, document{ID: "eve", Email: "ben@example.com"},
		document{ID: "fine", Email: "fine@example.com"})
	var faults []string
	for _, f := range wrong.Faults {
		faults = append(faults, fmt.Sprint(f.Line, " ", f.Path, " ", f.Message))
	}
	for i, want := range []string{"1 userID is the id of a user of staticPasswords", "2 userID is the id of a user of " +
		"the connector ldap",
		"3 email is what user boss of staticPasswords signs in with", "4 email is what user " + id + " signs in with"} {
		if len(faults) != 4 || !strings.HasPrefix(faults[i], want) {
			t.Errorf("%q", faults)
			break
		}
	}
	if _, err := p.store.User(ctx, "fine"); err == nil {
		t.Error("one was made beside the faults of others")
	}
	if strings.Contains(p.log.String(), first) || strings.Contains(p.log.String(), "@example.com") {
		t.Errorf("log: %s", p.log)
	}
}

// Commands take an id or what somebody signs in with: what is one of them is not the other of somebody else.
func TestIDOfOneIsNoLoginOfAnother(t *testing.T) {
	p := newPeopleAPI(t)
	var out admin.UsersApplied
	p.apply(200, &out, document{ID: "ann", Email: "ann@example.com"}, document{ID: "ben@example.com",
		Email: "ben@example.com"},
		document{ID: "cat@example.com", Email: "c@example.com"})
	for name, d := range map[string]document{
		"an id that somebody signs in with": {ID: "ann@example.com", Email: "eve@example.com"},
		"a login that is an id":             {ID: "eve", Email: "cat@example.com"},
		"a login of its own that is not":    {ID: "ann", Email: "ben@example.com"},
	} {
		var wrong admin.Problem
		if p.apply(422, &wrong, d); len(wrong.Faults) != 1 || wrong.Faults[0].Code != "login-taken" {
			t.Errorf("%s: %+v", name, wrong.Faults)
		}
	}
	p.apply(200, &out, document{ID: "ann", Email: "ann@example.com", Name: "Ann"},
		document{ID: "ben@example.com", Email: "ben@example.com", Name: "Ben"})
}

func TestPeopleAreAppliedByManyAtOnce(t *testing.T) {
	p := newPeopleAPI(t)
	var racers sync.WaitGroup
	ids := make([]string, 16)
	for r := range ids {
		racers.Go(func() {
			var out admin.UsersApplied
			p.apply(200, &out, document{Email: "ann@example.com", Name: fmt.Sprint("Ann ", r)})
			ids[r] = out.Users[0].ID
		})
	}
	racers.Wait()
	if len(slices.Compact(slices.Clone(ids))) != 1 {
		t.Errorf("several accounts: %q", ids)
	}
	if users, _, err := p.store.UsersPart(t.Context(), storage.Part{}); err != nil || len(users) != 1 {
		t.Errorf("%d users, %v", len(users), err)
	}
}

func TestAPasswordOfAnOperatorIsStrongAndEndsWhatWasBegun(t *testing.T) {
	p := newPeopleAPI(t)
	p.apply(200, nil, document{ID: "ann", Email: "ann@example.com"})
	if _, err := p.store.PutUser(t.Context(), storage.User{ID: "boss", Connector: "local"}); err != nil {
		t.Fatal(err)
	}
	const strong = "quartz tangerine lighthouse"
	path := "/v1/users/ann/password"
	for password, code := range map[string]string{"short": "weak_password", "password1": "weak_password",
		"ann@example.com": "weak_password", strong + "\n": "invalid_password", "": "invalid_request"} {
		var wrong admin.Problem
		if p.call("PUT", path, map[string]string{"password": password}, 422, &wrong); wrong.Code != code {
			t.Errorf("%q: %+v", password, wrong)
		}
	}
	before, err := p.store.Account(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	var out admin.PasswordSet
	for _, keep := range []bool{true, false} {
		p.call("PUT", path, map[string]any{"password": strong, "keep": keep}, 200, &out)
		now, err := p.store.Account(t.Context(), "ann")
		if right, _ := factor.CheckPassword(now.Factors.Password.Hash, strong); err != nil || !right || out.Ended == keep ||
			now.User.Stands(before.User.Term) != keep {
			t.Errorf("keep %v: %+v %v", keep, out, err)
		}
	}
	if !p.world.was("password of ann") || p.ended.Load() == 0 {
		t.Errorf("told %q, %d times that sessions have ended", p.world.told, p.ended.Load())
	}
	var wrong admin.Problem
	if p.call("PUT", "/v1/users/boss/password", map[string]string{"password": strong}, 409,
		&wrong); wrong.Code != "not_managed" {
		t.Errorf("%+v", wrong)
	}
	p.call("PUT", "/v1/users/nobody/password", map[string]string{"password": strong}, 404, nil)
	entries, _, err := p.store.Audit(t.Context(), storage.AuditQuery{User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	told, _ := json.Marshal(entries)
	if n := strings.Count(string(told), `"password-set"`); n != 2 {
		t.Errorf("%d entries: %s", n, told)
	}
	for where, text := range map[string]string{"log": p.log.String(), "audit": string(told)} {
		if strings.Contains(text, "tangerine") || strings.Contains(text, "$argon2id") {
			t.Errorf("the password is in the %s: %s", where, text)
		}
	}
}

func TestLostFactorsAreRemovedByIDOrAll(t *testing.T) {
	p := newPeopleAPI(t)
	p.apply(200, nil, document{ID: "ann", Email: "ann@example.com", Hash: factor.HashPassword("x")})
	give := func() {
		account, err := p.store.Account(t.Context(), "ann")
		if err != nil {
			t.Fatal(err)
		}
		next := account.Factors.Clone()
		next.TOTP = storage.TOTP{Secret: factor.NewTOTP(), At: time.Now()}
		_, next.Recovery = factor.NewRecoveryCodes()
		next.Recovery[0].UsedAt = time.Now()
		next.Passkeys = []storage.Passkey{{ID: []byte{1, 255}, Name: "Phone", PublicKey: []byte{1}, At: time.Now()}}
		if _, _, err := p.store.ChangeFactors(t.Context(), account, storage.FactorChange{Next: next}); err != nil {
			t.Fatal(err)
		}
	}
	shown := func() string {
		var u admin.UserDetail
		p.call("GET", "/v1/users/ann", nil, 200, &u)
		var all []string
		for _, f := range u.Factors {
			all = append(all, fmt.Sprint(f.ID, " ", f.Kind, " ", f.Name, " ", f.Left))
		}
		return fmt.Sprint(u.Password, " ", strings.Join(all, ", "))
	}
	give()
	if got := shown(); got != "true Af8 passkey Phone 0, totp totp  0, recovery recovery  9" {
		t.Error(got)
	}
	before, err := p.store.User(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	var out admin.FactorsRemoved
	p.call("DELETE", "/v1/users/ann/factors/totp?keep=true", nil, 200, &out)
	if now, err := p.store.User(t.Context(), "ann"); err != nil || !now.Stands(before.Term) ||
		!slices.Equal(out.Removed, []string{"totp"}) {
		t.Errorf("%+v %v", out, err)
	}
	p.call("DELETE", "/v1/users/ann/factors/totp", nil, 404, nil)
	p.call("DELETE", "/v1/users/ann/factors/Af8", nil, 200, &out)
	if now, err := p.store.User(t.Context(), "ann"); err != nil || now.Stands(before.Term) ||
		shown() != "true recovery recovery  9" {
		t.Errorf("%+v %v %s", out, err, shown())
	}
	give()
	p.call("DELETE", "/v1/users/ann/factors", nil, 200, &out)
	if shown() != "true " || len(out.Removed) != 3 || !p.world.was("factors of ann") {
		t.Errorf("%s %+v %q", shown(), out, p.world.told)
	}
	p.call("DELETE", "/v1/users/ann/factors", nil, 200, &out)
	if len(out.Removed) != 0 {
		t.Errorf("%+v", out)
	}
	p.call("DELETE", "/v1/users/nobody/factors", nil, 404, nil)
}

func TestLinksGoByMailOrToTheOperator(t *testing.T) {
	p := newPeopleAPI(t)
	p.apply(200, nil, document{ID: "ann", Email: "ann@example.com"})
	const path = "/v1/users/ann/link"
	var out admin.MadeLink
	p.call("POST", path, map[string]any{"for": "invitation", "valid": "72h", "mail": true}, 200, &out)
	if out.Link != "https://id.test/welcome?ann-invitation-72h0m0s" || out.Mailed ||
		time.Until(out.ExpiresAt) < 71*time.Hour {
		t.Errorf("%+v", out)
	}
	p.world.mails, out = true, admin.MadeLink{}
	p.call("POST", path, map[string]any{"for": "reset", "mail": true}, 200, &out)
	if out.Link != "" || !out.Mailed || time.Until(out.ExpiresAt) > 15*time.Minute || !p.world.was("mail reset to ann") {
		t.Errorf("%+v %q", out, p.world.told)
	}
	out = admin.MadeLink{}
	if p.call("POST", path, map[string]any{"for": "reset"}, 200, &out); out.Link == "" {
		t.Errorf("%+v", out)
	}
	for _, valid := range []string{"0s", "30s", "169h", "soon"} {
		p.call("POST", path, map[string]any{"for": "reset", "valid": valid}, 422, nil)
	}
	p.call("POST", path, map[string]any{"for": "fun"}, 422, nil)
	p.call("POST", "/v1/users/ann/disable", nil, 200, nil)
	var wrong admin.Problem
	if p.call("POST", path, map[string]any{"for": "reset"}, 409, &wrong); wrong.Code != "user_disabled" {
		t.Errorf("%+v", wrong)
	}
	if strings.Contains(p.log.String(), "welcome") {
		t.Errorf("a link is in the log: %s", p.log)
	}
}

func TestManyUsersAreListedByWhatIsAsked(t *testing.T) {
	p := newPeopleAPI(t)
	people := make([]document, 1300)
	for i := range people {
		people[i] = document{ID: fmt.Sprintf("u%04d", i), Email: fmt.Sprintf("u%d@example.com", i), Groups: []string{"all"}}
	}
	people[7].Groups, people[1299].Groups, people[1200].Name = []string{"all", "admins"}, []string{"admins"}, "Überall"
	p.apply(200, nil, people...)
	p.call("POST", "/v1/users/u0007/disable", nil, 200, nil)
	list := func(query string) (ids []string, requests int) {
		for path := "/v1/users?" + query; path != ""; requests++ {
			var part []admin.User
			path = admin.Next(p.call("GET", path, nil, 200, &part))
			for _, u := range part {
				ids = append(ids, u.ID)
			}
		}
		return ids, requests
	}
	for query, want := range map[string]string{"group=admins": "u0007 u1299", "group=admins&state=active": "u1299",
		"state=disabled": "u0007", "match=%C3%BCBER": "u1200", "match=U12%40": "u0012", "connector=ldap": "",
		"group=adm": ""} {
		if ids, requests := list(query); strings.Join(ids, " ") != want || requests > 3 {
			t.Errorf("%s: %q in %d requests, want %q", query, ids, requests, want)
		}
	}
	if ids, _ := list("group=all&limit=100"); len(ids) != 1299 || !slices.IsSorted(ids) {
		t.Errorf("%d users", len(ids))
	}
}
