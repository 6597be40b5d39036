package pages

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/text/language"
)

func newSet(t testing.TB, issuer string) *Set {
	t.Helper()
	s, err := New(Config{Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var exampleApp = App{
	ClientName:  "My OAuth App",
	LogoURI:     "https://cdn.example.net/logo.png",
	TosURI:      "https://my-app.example.com/terms",
	PolicyURI:   "https://my-app.example.com/privacy",
	RedirectURI: "https://my-app.example.com/callback",
}

var passkeyForm = PasskeyForm{Action: "/signin/passkey", Hidden: []Field{{"challenge", "c"}},
	Options: `{"challenge":"\"<'"}`,
	Offers:  true}

// everyPage is each page in each of its shapes, by name.
func everyPage(f Frame) map[string]Page {
	hidden := []Field{{"csrf", "c1"}, {"request", "r1"}}
	low := Scope{Name: "threads:read", Description: "Read threads", Risk: RiskLow}
	write := Scope{Name: "runs:write", Description: "Start runs", Risk: RiskWrite}
	broad := Scope{Name: "admin", Description: "Everything", Risk: RiskBroad}
	about := Scope{Name: "openid profile", Risk: RiskLow, Known: Abouts, Confirms: true}
	m := map[string]Page{
		"sign-in":                SignIn{Frame: f, App: exampleApp, Action: "/login", Hidden: hidden},
		"sign-in without an app": SignIn{Frame: f, Action: "/login"},
		"sign-in wrong": SignIn{Frame: f, App: exampleApp, Action: "/login", Login: "a@example.com",
			Problem: ProblemCredentials},
		"sign-in busy": SignIn{Frame: f, App: exampleApp, Action: "/login", Problem: ProblemBusy},
		"sign-in busy, wait": SignIn{Frame: f, App: exampleApp, Action: "/login", Problem: ProblemBusy,
			RetryAfter: 5 * time.Second},
		"sign-in too many": SignIn{Frame: f, App: exampleApp, Action: "/login", Problem: ProblemTooMany},
		"sign-in too many, wait": SignIn{Frame: f, App: exampleApp, Action: "/login", Problem: ProblemTooMany,
			RetryAfter: 90 * time.Second},
		"consent": Consent{Frame: f, App: exampleApp, Person: Person{"Hanako", "h@example.com"},
			New: []Scope{low, write, broad}, Action: "/consent", Hidden: hidden, Account: "/account/apps"},
		"consent to more": Consent{Frame: f, App: exampleApp, Person: Person{UserEmail: "h@example.com"},
			New: []Scope{write}, Granted: []Scope{low, write}, Action: "/consent", AtMost: 165 * 24 * time.Hour},
		"consent in a session": Consent{Frame: f, App: exampleApp, Person: Person{UserName: "Hanako"}, New: []Scope{low},
			Action: "/consent", AtMost: 20 * time.Hour, InSession: true},
		"consent to nothing new": Consent{Frame: f, App: exampleApp, Person: Person{UserName: "Hanako"},
			Granted: []Scope{low}, Action: "/consent", AtMost: 12 * time.Hour, UnusedFor: 10 * time.Minute},
		"consent, bare local app": Consent{Frame: f, App: App{ClientName: "x", RedirectURI: "http://localhost:3000/"},
			Person: Person{UserName: "Hanako"}, New: []Scope{low}, Action: "/consent"},
		"consent, described app": Consent{Frame: f, App: App{ClientName: "x", RedirectURI: "http://localhost:3000/",
			DescribedAt: "https://agent.example/c"}, Person: Person{UserName: "Hanako"}, New: []Scope{low}, Action: "/consent"},
		"consent, resources": Consent{Frame: f, App: exampleApp, Person: Person{UserName: "Hanako"}, New: []Scope{low},
			Resources: []Resource{{Name: "Files", Identifier: "https://files.example.com/api"}, {Identifier: "urn:x:y"},
				{Identifier: "https://id.example.com", Here: true}}, Action: "/consent"},
		"confirm device, resource": ConfirmDevice{Frame: f, App: exampleApp, UserCode: "WDJB-MJHT",
			Person: Person{UserEmail: "h@example.com"}, Scopes: []Scope{low}, Resources: []Resource{{Identifier: "urn:x:y"}},
			Action: "/consent"},
		"consent, unvouched": Consent{Frame: f, App: App{ClientName: "x", RedirectURI: "https://x.example/",
			Unvouched: true}, Person: Person{UserName: "Hanako"}, New: []Scope{low}, Granted: []Scope{write},
			Action: "/consent"},
		"denied, with a way back": Error{Frame: f, Reason: ReasonDenied, Code: "access_denied", Developer: "no",
			Back: Back{RedirectURI: "https://x.example/cb", Link: "https://x.example/cb?error=access_denied&state=a%20b"}},
		"silent, with a form back": Error{Frame: f, Reason: ReasonSilent, Code: "login_required",
			Back: Back{RedirectURI: "https://x.example/cb", Fields: []Field{{"error", "login_required"}}}},
		"sign-in, passkey": SignIn{Frame: f, App: exampleApp, Action: "/login", Hidden: hidden, CanCancel: true,
			Passkey: passkeyForm},
		"sign-in, passkey removed": SignIn{Frame: f, Action: "/login", Problem: ProblemPasskey, Passkey: passkeyForm},
		"sign-in, passkey late":    SignIn{Frame: f, Action: "/login", Problem: ProblemPasskeyLate, Passkey: passkeyForm},
		"sign-in, passkey copied":  SignIn{Frame: f, Action: "/login", Problem: ProblemPasskeyCopied, Passkey: passkeyForm},
		"sign-in, described app":   SignIn{Frame: f, App: App{DescribedAt: "https://agent.example/c"}, Action: "/login"},
		"confirm described app": ConfirmDevice{Frame: f, App: App{ClientName: "x", DescribedAt: "https://agent.example/c"},
			UserCode: "WDJB-MJHT", Person: Person{UserEmail: "h@example.com"}, Scopes: []Scope{low}, Action: "/consent",
			AtMost: time.Hour},
		"device":                 Device{Frame: f, Action: "/device", Hidden: hidden},
		"device, code known":     Device{Frame: f, Action: "/device", UserCode: "WDJB-MJHT"},
		"device, too many, wait": Device{Frame: f, Action: "/device", Problem: DeviceTooMany, RetryAfter: 90 * time.Second},
		"confirm device": ConfirmDevice{Frame: f, App: exampleApp, UserCode: "WDJB-MJHT", Person: Person{"Hanako",
			"h@example.com"}, Scopes: []Scope{low, write, broad}, Action: "/consent", Hidden: hidden, AtMost: time.Hour},
		"confirm device, bare": ConfirmDevice{Frame: f, App: App{ClientName: "x"}, UserCode: "WDJB-MJHT",
			Person: Person{UserEmail: "h@example.com"}, Scopes: []Scope{low}, Action: "/consent", AtMost: time.Hour,
			UnusedFor: time.Minute},
		"no access": NoAccess{Frame: f, App: exampleApp, Person: Person{"Hanako", "h@example.com"},
			Action: "/consent", Hidden: hidden, RequestID: "r-1", CanGoBack: true},
		"no access, device": NoAccess{Frame: f, App: App{ClientName: "x"}, Person: Person{UserEmail: "h@example.com"},
			Action: "/consent", Hidden: hidden, RequestID: "r-1"},
		"device connected": DeviceDone{Frame: f, App: exampleApp, Approved: true},
		"device denied":    DeviceDone{Frame: f, App: exampleApp},
		"form post": Onward{Frame: f, Back: Back{RedirectURI: "https://my-app.example.com/callback",
			Fields: []Field{{"code", "c1"}, {"state", "s1"}, {"iss", "https://id.example.com"}}}},
		"onward": Onward{Frame: f, Back: Back{RedirectURI: "https://my-app.example.com/callback",
			Link: "https://my-app.example.com/callback?code=c1"}},
		"onward, installed app": Onward{Frame: f, Back: Back{RedirectURI: "com.example.app:/cb",
			Link: "com.example.app:/cb?code=c1"}},
		"second factor": Factor{Frame: f, App: exampleApp, Person: Person{"Hanako", "h@example.com"},
			Action: "/factor", Hidden: hidden, Code: true, CanCancel: true},
		"passkeys": Passkeys{AccountFrame: AccountFrame{Frame: f, Account: "/account",
			Action: "/account/passkeys", Hidden: hidden}, Passkey: passkeyForm},
		"passkeys, some": Passkeys{AccountFrame: AccountFrame{Frame: f, Account: "/account", Action: "/account/passkeys",
			Hidden: hidden, Notice: NoticePasskey}, Passkey: passkeyForm,
			Passkeys: []ShownPasskey{{Key: "AA", Name: "1Password", At: time.Unix(1, 0).UTC(), Synced: true},
				{Key: "AB", At: time.Unix(1, 0).UTC(), UsedAt: time.Unix(9, 0).UTC()}}, After: "GitHub"},
		"passkeys, full": Passkeys{AccountFrame: AccountFrame{Frame: f, Account: "/account",
			Action: "/account/passkeys"}, Passkeys: []ShownPasskey{{Key: "AA"}}, Full: true},
		"second factor, passkey": Factor{Frame: f, App: exampleApp, Person: Person{"Hanako", "h@example.com"},
			Action: "/factor", Hidden: hidden, Code: true, Passkey: passkeyForm},
		"second factor, only that": Factor{Frame: f, Action: "/factor", Passkey: passkeyForm},
		"second factor, recovery": Factor{Frame: f, Person: Person{UserEmail: "h@example.com"}, Action: "/factor",
			Hidden: hidden, Recovery: true},
		"second factor, wait": Factor{Frame: f, Action: "/factor", Code: true, Problem: FactorTooMany,
			RetryAfter: 90 * time.Second},
		"enrol": Enrol{Frame: f, App: exampleApp, Person: Person{"Hanako", "h@example.com"},
			Action: "/factor", Hidden: hidden, Passkeys: "/account/passkeys?request=x", Codes: "/account/totp?request=x",
			CanCancel: true},
		"enrol, passkey": Enrol{Frame: f, App: exampleApp, Person: Person{UserName: "Hanako"}, Action: "/factor",
			Hidden: hidden, ByServer: true, Passkeys: "/account/passkeys?request=x", CanCancel: true},
		"enrol, nothing": Enrol{Frame: f, Person: Person{UserName: "Hanako"}, Action: "/factor"},
		"enrol, code": Enrol{Frame: f, Person: Person{UserName: "Hanako"}, Action: "/factor", ByServer: true,
			Codes: "/account/totp?request=x"},
		"landing":            Landing{Frame: f},
		"landing, signed in": Landing{Frame: f, Person: Person{"Hanako", "h@example.com"}, SignOut: "/logout"},
		"sign-in, ways": SignIn{Frame: f, App: exampleApp, Action: "/login", Hidden: hidden, CanCancel: true,
			Ways: []Way{{Name: "GitHub", Logo: "/assets/logo-1.svg", Address: "/c/github"}, {Name: "大学", Address: "/c/u"}}},
		"sign-in, only ways": SignIn{Frame: f, App: exampleApp, Action: "/login", Hidden: hidden, CanCancel: true,
			NoForm: true, Ways: []Way{{Name: "GitHub", Address: "/c/github"}, {Address: "/c/local"}}},
		"sign-in, directory": SignIn{Frame: f, App: exampleApp, Action: "/login/ldap", Hidden: hidden, With: "LDAP",
			Prompt: "Matriculation number", CanCancel: true},
		"sign-in, no way": SignIn{Frame: f, Action: "/login", NoForm: true, Problem: ProblemNoWay},
		"sign-in, unavailable": SignIn{Frame: f, Action: "/login", Problem: ProblemUnavailable, By: "GitHub",
			RetryAfter: time.Second},
		"sign-in, refused":   SignIn{Frame: f, Action: "/login", Problem: ProblemRefused, By: "GitHub"},
		"sign-in, groups":    SignIn{Frame: f, Action: "/login", Problem: ProblemGroups, By: "GitHub"},
		"sign-in, not again": SignIn{Frame: f, Action: "/login", Problem: ProblemNotAgain, By: "GitHub"},
		"carry on": Carry{Frame: f, To: "https://idp.example/saml", Fields: []Field{{"SAMLRequest", "x"},
			{"RelayState", "y"}}},
		"carry here":       Carry{Frame: f, To: "/callback?here=1", Fields: []Field{{"SAMLResponse", "x"}}},
		"landing, sign-in": Landing{Frame: f, SignIn: "/signin"},
		"landing, apps": Landing{Frame: f, Account: "/account", Person: Person{UserName: "Hanako"},
			SignOut: "/logout", Apps: []Start{{"Board", "/start?client_id=b"}}},
		"consent, about a person": Consent{Frame: f, App: exampleApp, Person: Person{UserName: "Hanako"},
			New: []Scope{about, write}, Granted: []Scope{{Name: "email", Risk: RiskLow, Known: []About{AboutEmail}}},
			Action: "/consent", Late: true},
		"confirm device, late": ConfirmDevice{Frame: f, App: exampleApp, UserCode: "WDJB-MJHT",
			Person: Person{UserEmail: "h@example.com"}, Scopes: []Scope{about}, Action: "/consent", Late: true},
		"expired, of an app": Error{Frame: f, App: exampleApp, Reason: ReasonExpired, RequestID: "r-1",
			Back: Back{RedirectURI: "https://x.example/cb", Link: "https://x.example/cb?error=x"}},
		"sign-out": SignOut{Frame: f, App: exampleApp, Person: Person{"Hanako", "h@example.com"},
			Action: "/signout", Hidden: hidden},
		"sign-out, no app": SignOut{Frame: f, Person: Person{UserEmail: "h@example.com"}, Action: "/signout",
			Hidden: hidden},
		"stays signed in": SignedOut{Frame: f, Stays: true, ClientName: "My OAuth App",
			ReturnURI: "https://my-app.example.com/"},
		"signed out, frames": SignedOut{Frame: f, ClientName: "My OAuth App",
			ReturnURI: "https://my-app.example.com/?state=s", Frames: []string{"https://a.example/out",
				"https://b.example/out"}},
		"signed out":              SignedOut{Frame: f},
		"signed out, back to app": SignedOut{Frame: f, ClientName: "My OAuth App", ReturnURI: "https://my-app.example.com/"},
		"error with everything": Error{Frame: f, Reason: ReasonUnavailable, Code: "temporarily_unavailable",
			Developer: "storage", RequestID: "r-1", RetryAfter: time.Second},
	}
	maps.Copy(m, accountPages(f))
	for _, p := range FactorProblems {
		m["second factor "+string(p)] = Factor{Frame: f, Action: "/factor", Person: Person{UserName: "Hanako"}, Code: true,
			Recovery: true, Problem: p}
	}
	for _, p := range append(PasswordProblems, PasswordFine) {
		m["welcome "+string(p)] = Welcome{Frame: f, Person: Person{"Hanako", "h@example.com"}, Login: "hanako", Passkey: true,
			Action: "/welcome", Hidden: hidden, Problem: p}
		m["reset "+string(p)] = Welcome{Frame: f, Person: Person{UserEmail: "h@example.com"}, Login: "h@example.com",
			Reset: true, Second: true, Action: "/welcome", Problem: p, RetryAfter: 5 * time.Second}
	}
	m["link gone"], m["link gone, mail"] = LinkGone{Frame: f}, LinkGone{Frame: f, Forgot: "/forgot"}
	for _, p := range append(ForgotProblems, ForgotFine) {
		m["forgot "+string(p)] = Forgot{Frame: f, Action: "/forgot", Hidden: hidden, Back: "/signin", Problem: p,
			RetryAfter: time.Minute}
	}
	m["forgot, sent"] = Forgot{Frame: f, Sent: true, Back: "/continue?request=r1"}
	m["sign-in, forgot"] = SignIn{Frame: f, Action: "/login", Forgot: "/forgot"}
	for _, p := range DeviceProblems {
		m["device "+string(p)] = Device{Frame: f, Action: "/device", UserCode: "x", Problem: p}
	}
	for _, r := range Reasons {
		m["error "+string(r)] = Error{Frame: f, Reason: r, RequestID: "r-1"}
	}
	return m
}

func get(s *Set, p Page) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	if err := s.Render(w, http.StatusOK, p); err != nil {
		panic(err)
	}
	return w
}

func parse(t *testing.T, body []byte) *html.Node {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func attr(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

func has(n *html.Node, name, value string) bool {
	v, ok := attr(n, name)
	return ok && v == value
}

// elements are those with one of the tags, in document order; all without tags.
func elements(doc *html.Node, tags ...string) []*html.Node {
	var out []*html.Node
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if len(tags) == 0 {
			out = append(out, n)
		}
		for _, tag := range tags {
			if n.Data == tag {
				out = append(out, n)
			}
		}
	}
	return out
}

// words is the text inside n, with white space folded.
func words(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestEveryPageIsAccessible(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	for _, lang := range Languages {
		f := Frame{Lang: lang, English: "/x?ui_locales=en", Japanese: "/x?ui_locales=ja"}
		for name, page := range everyPage(f) {
			t.Run(lang.String()+"/"+name, func(t *testing.T) {
				doc := parse(t, get(s, page).Body.Bytes())
				checkDocument(t, doc, lang)
				checkFrames(t, doc, page)
				checkScripts(t, doc, page)
				checkForms(t, doc)
				checkReferences(t, doc)
			})
		}
	}
}

func checkDocument(t *testing.T, doc *html.Node, lang language.Tag) {
	root := elements(doc, "html")[0]
	if !has(root, "lang", lang.String()) {
		t.Errorf("html has no lang %s", lang)
	}
	if title := elements(doc, "title"); len(title) != 1 || strings.HasPrefix(words(title[0]), "·") {
		t.Errorf("no title of its own")
	}
	if n := len(elements(doc, "main")); n != 1 {
		t.Errorf("%d main landmarks", n)
	}
	level := 0
	for _, h := range elements(doc, "h1", "h2", "h3", "h4") {
		l := int(h.Data[1] - '0')
		if l > level+1 || (l == 1) != (level == 0) {
			t.Errorf("%s %q after h%d", h.Data, words(h), level)
		}
		if words(h) == "" {
			t.Errorf("empty %s", h.Data)
		}
		level = l
	}
	if level == 0 {
		t.Error("no heading")
	}
	for _, n := range elements(doc) {
		switch n.Data {
		case "style", "object", "embed", "base":
			t.Errorf("<%s> on a page", n.Data)
		case "img":
			if _, ok := attr(n, "alt"); !ok {
				t.Error("img without alt")
			}
		case "svg":
			if label, _ := attr(n, "aria-label"); !has(n, "aria-hidden", "true") && (!has(n, "role", "img") || label == "") {
				t.Error("an image is neither decoration, hidden from screen readers, nor has a name for them")
			}
		case "a", "button":
			if words(n) == "" {
				t.Errorf("%s without text", n.Data)
			}
			if href, _ := attr(n, "href"); n.Data == "a" && href == "" {
				t.Errorf("link %q leads nowhere", words(n))
			}
			if has(n, "target", "_blank") && !has(n, "rel", "noopener noreferrer") {
				t.Error("new tab without noopener noreferrer")
			}
		}
		for _, a := range n.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("attribute %s, which the policy forbids", a.Key)
			}
			if strings.Contains(a.Val, "ZgotmplZ") {
				t.Errorf("%s of %s was refused by html/template", a.Key, n.Data)
			}
		}
	}
}

// checkFrames holds that frames are those of the page, can do little, and are nothing to stop at.
func checkFrames(t *testing.T, doc *html.Node, page Page) {
	frames := elements(doc, "iframe")
	if len(frames) != len(page.frames()) {
		t.Errorf("%d frames, want %d", len(frames), len(page.frames()))
	}
	for _, f := range frames {
		if !has(f, "sandbox", "allow-scripts allow-same-origin") || !has(f, "tabindex", "-1") ||
			!has(f, "aria-hidden", "true") {
			t.Errorf("frame %v", f.Attr)
		}
	}
}

// The page with frames goes on by itself only when there is something to wait for and somewhere to go, and by a button
// always.
func TestSignedOutGoesOn(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	const back, frame = "https://app.example/bye?state=a%22%3Bb&x=1", "https://a.example/out"
	for name, c := range map[string]struct {
		page    SignedOut
		refresh string
	}{
		"frames and somewhere to go": {SignedOut{ReturnURI: back, Frames: []string{frame}}, "3;url=" + back},
		"nowhere to go":              {SignedOut{Frames: []string{frame}}, ""},
		"no frames":                  {SignedOut{ReturnURI: back}, ""},
		"frames that are not shown":  {SignedOut{ReturnURI: back, Frames: []string{"javascript:alert(1)"}}, ""},
		"not a place for a browser":  {SignedOut{ReturnURI: "javascript:alert(1)", Frames: []string{frame}}, ""},
		"stays":                      {SignedOut{ReturnURI: back, Frames: []string{frame}, Stays: true}, ""},
	} {
		doc := parse(t, get(s, c.page).Body.Bytes())
		got := ""
		for _, m := range elements(doc, "meta") {
			if has(m, "http-equiv", "refresh") {
				got, _ = attr(m, "content")
			}
		}
		button := false
		for _, a := range elements(doc, "a") {
			button = button || has(a, "href", back)
		}
		if got != c.refresh || button != (c.page.ReturnURI == back) {
			t.Errorf("%s: refresh %q, button %v", name, got, button)
		}
	}
}

// checkScripts holds that a page has the script that its policy allows, and no other.
func checkScripts(t *testing.T, doc *html.Node, page Page) {
	scripts := elements(doc, "script")
	if len(scripts) == 0 && page.script() == "" {
		return
	}
	if len(scripts) != 1 || len(scripts[0].Attr) != 0 || scripts[0].FirstChild.Data != page.script() {
		t.Errorf("%d scripts, want %q", len(scripts), page.script())
	}
}

func checkForms(t *testing.T, doc *html.Node) {
	labels := map[string]string{}
	for _, l := range elements(doc, "label") {
		id, _ := attr(l, "for")
		labels[id] = words(l)
	}
	for _, in := range elements(doc, "input") {
		id, _ := attr(in, "id")
		if !has(in, "type", "hidden") && labels[id] == "" {
			t.Errorf("input %q has no label", id)
		}
	}
	for _, f := range elements(doc, "form") {
		if !has(f, "method", "post") {
			t.Error("form does not post")
		}
	}
}

func checkReferences(t *testing.T, doc *html.Node) {
	ids := map[string]bool{}
	for _, n := range elements(doc) {
		if id, ok := attr(n, "id"); ok {
			if ids[id] {
				t.Errorf("id %q twice", id)
			}
			ids[id] = true
		}
	}
	for _, n := range elements(doc) {
		for _, key := range []string{"aria-describedby", "aria-labelledby", "for", "form"} {
			v, _ := attr(n, key)
			for id := range strings.FieldsSeq(v) {
				if !ids[id] {
					t.Errorf("%s=%q points nowhere", key, id)
				}
			}
		}
	}
}

func TestSignInForm(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	doc := parse(t, get(s, SignIn{App: exampleApp, Action: "/login?x=1&y=2", Hidden: []Field{{"csrf", `"><b>`}},
		Login: "h@example.com", Problem: ProblemCredentials}).Body.Bytes())
	form := elements(doc, "form")[0]
	if !has(form, "action", "/login?x=1&y=2") {
		t.Errorf("form attributes %v", form.Attr)
	}
	got := map[string]*html.Node{}
	for _, in := range elements(form, "input") {
		name, _ := attr(in, "name")
		got[name] = in
	}
	for name, want := range map[string]map[string]string{
		"csrf": {"type": "hidden", "value": `"><b>`},
		FieldLogin: {"value": "h@example.com", "autocomplete": "username", "aria-describedby": "problem",
			"aria-invalid": "true"},
		FieldPassword: {"type": "password", "autocomplete": "current-password", "aria-describedby": "problem",
			"aria-invalid": "true"},
	} {
		in := got[name]
		if in == nil {
			t.Errorf("no field %s", name)
			continue
		}
		for k, v := range want {
			if !has(in, k, v) {
				t.Errorf("%s: %s is not %q: %v", name, k, v, in.Attr)
			}
		}
	}
	if _, ok := attr(got[FieldPassword], "value"); ok {
		t.Error("a password is sent back")
	}
	for _, n := range elements(doc, "div") {
		if has(n, "id", "problem") && has(n, "role", "alert") {
			return
		}
	}
	t.Error("the problem is not announced")
}

func TestErrorPageSaysWhatToPassOn(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	w := get(s, Error{Reason: ReasonUnauthorizedClient, Developer: "https://evil.example is not registered",
		RequestID: "req-7"})
	text := words(parse(t, w.Body.Bytes()))
	for _, want := range []string{"unauthorized_client", "https://evil.example is not registered", "req-7",
		"Register the redirect URI"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	// What is for the developer is folded; the id is for whoever asks for help.
	if folded := words(elements(parse(t, w.Body.Bytes()), "details")[0]); !strings.Contains(folded,
		"evil.example is not registered") || strings.Contains(folded, "req-7") {
		t.Errorf("folded: %s", folded)
	}
	if got := get(s, Error{Reason: ReasonUnavailable, RetryAfter: 1500 * time.Millisecond}).Header().Get(
		"Retry-After"); got != "2" {
		t.Errorf("Retry-After %q", got)
	}
}

func TestLandingLeadsToDiscovery(t *testing.T) {
	for issuer, want := range map[string][]string{
		"https://id.example.com": {"https://id.example.com/.well-known/openid-configuration",
			"https://id.example.com/.well-known/oauth-authorization-server"},
		"https://example.com/tenant/": {"https://example.com/tenant/.well-known/openid-configuration",
			"https://example.com/.well-known/oauth-authorization-server/tenant"},
	} {
		links := map[string]bool{}
		for _, a := range elements(parse(t, get(newSet(t, issuer), Landing{}).Body.Bytes()), "a") {
			href, _ := attr(a, "href")
			links[href] = true
		}
		for _, w := range want {
			if !links[w] {
				t.Errorf("%s: no link to %s in %v", issuer, w, links)
			}
		}
	}
}

func TestLanguageSwitch(t *testing.T) {
	s := newSet(t, "https://id.example.com")
	doc := parse(t, get(s, Landing{Frame: Frame{Lang: language.Japanese, English: "/?ui_locales=en",
		Japanese: "/?ui_locales=ja"}}).Body.Bytes())
	nav := elements(doc, "nav")[0]
	for _, a := range elements(nav, "a") {
		if has(a, "hreflang", "ja") != has(a, "aria-current", "true") {
			t.Errorf("wrong language is marked: %v", a.Attr)
		}
	}
	if n := len(elements(parse(t, get(s, Landing{}).Body.Bytes()), "nav")); n != 0 {
		t.Error("a switch that leads nowhere")
	}
}

func TestFaultOfATemplateLeavesNoHalfPage(t *testing.T) {
	w := httptest.NewRecorder()
	err := newSet(t, "https://id.example.com").Render(w, http.StatusOK, Error{Reason: "of no known kind"})
	if err == nil || !strings.Contains(err.Error(), "page error in en") || w.Body.Len() > 0 || len(w.Header()) > 0 {
		t.Errorf("%v: %v %s", err, w.Header(), w.Body)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"relative issuer": {Issuer: "/x"},
		"other scheme":    {Issuer: "ftp://example.com"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
