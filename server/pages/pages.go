// Package pages draws what a person sees: sign-in, consent, the code of a device,
// errors, the front page of the issuer and the page after signing out.
//
// Use it from the handlers of server, and only for answers that a browser
// shows. A handler fills one of the page types ([SignIn], [Factor], [Consent], [NoAccess],
// [Device], [ConfirmDevice], [DeviceDone], [Onward], [Carry], [Error], [Landing],
// [SignOut], [SignedOut], and those of account.go) and calls [Set.Render]; nothing here reads a request,
// keeps state, or decides what comes next.
//
// # Flow
//
// [New] fingerprints the stylesheet, the icon and the operator's logo, which
// [Set.Assets] serves under [Set.AssetsPath]; a template is parsed, once for
// each language, when it is first shown. [Set.Lang] picks the language from what the request asks
// for. Render executes the template into a buffer, sets the headers and writes,
// so a fault never leaves half a page.
//
// # Invariants
//
//   - A page has one script at the most, allowed by its hash: [Onward] and
//     [Carry] post a form, [SignIn] can show the password, and pages with a
//     [PasskeyForm] ask the browser for a passkey, which takes a script. Everything
//     else works without scripts, with a keyboard, a screen reader, and in forced colours.
//   - Whatever comes from an app, a person or a request is text. html/template
//     escapes it, [plain] takes out what would reorder or hide it, and an
//     address is only linked when [webURL] says that it is plain https (or
//     loopback http).
//   - The consent page names the host that gets the data, next to the name that
//     the developer chose: the host is a fact, the name is a claim.
//   - Nothing is fetched here. The logo of an app is loaded by the browser,
//     without a referrer, from the one origin that the page's policy allows;
//     the operator's is a file that is served from here.
//   - Every text is in locales/en.yaml and locales/ja.yaml, under the same keys.
//     What was refused is said in English, as programs are told; rules.ja.yaml
//     says it in Japanese, by the name of the rule.
package pages

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/language"
)

//go:embed templates/*.html
var templateFiles embed.FS

// Set is every page in every language, ready to be rendered. It is safe for
// concurrent use, and nothing of it changes, but that logos are added.
type Set struct {
	site      site
	assets    *sync.Map // of path to asset
	before    *sync.Map // those of the Set before
	templates map[language.Tag]map[string]lazyTemplate
}

// site is what the pages know about the issuer that they belong to, and about whoever runs it.
type site struct {
	Host    string // as people see it in the address bar, with a port if any
	Name    string // the operator's, or Host
	Home    string // path of the landing page
	Style   string // path of the stylesheet
	Icon    string // path of the icon
	Logo    string // path of the operator's logo; "" without one
	Support string // address where people find help; "" without one
	Privacy string // address of the privacy policy; "" without one

	issuer *url.URL
}

// Named reports whether the operator has a name beside the host.
func (s site) Named() bool { return s.Name != s.Host }

// Mails reports whether help is found by e-mail.
func (s site) Mails() bool { return strings.HasPrefix(s.Support, "mailto:") }

// Issuer is the issuer identifier.
func (s site) Issuer() string { return s.issuer.String() }

// OpenIDDiscovery is the address of the OpenID Connect Discovery 1.0 document
// (section 4: the issuer with the well-known path after it).
func (s site) OpenIDDiscovery() string {
	return strings.TrimSuffix(s.issuer.String(), "/") + "/.well-known/openid-configuration"
}

// OAuthDiscovery is the address of the metadata of RFC 8414 (section 3: the
// well-known path stands between the host and the issuer's path).
func (s site) OAuthDiscovery() string {
	u := url.URL{Scheme: s.issuer.Scheme, Host: s.issuer.Host}
	return u.String() + "/.well-known/oauth-authorization-server" + strings.TrimSuffix(s.issuer.EscapedPath(), "/")
}

// Config is what a Set is built from.
type Config struct {
	// Issuer is the issuer identifier. Its host stands at the top of each page,
	// and its path is where the stylesheet is found.
	Issuer string

	// Branding is what the operator says about themselves.
	Branding Branding

	// Before is the Set that this one replaces; nil for the first one. Pages of it are still in browsers, so its logos are
	// served on.
	Before *Set
}

// New parses the templates and texts. It fails when the issuer is not an
// absolute http or https URL, or something is wrong with the branding; any
// other error is a fault of the embedded files.
func New(c Config) (*Set, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("parse issuer: %w", err)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("issuer %q is not an absolute http or https URL", c.Issuer)
	}

	if wrong := c.Branding.Check(); len(wrong) > 0 {
		return nil, &wrong[0]
	}

	base := strings.TrimSuffix(u.EscapedPath(), "/")
	s := &Set{assets: &sync.Map{}, before: &sync.Map{}}
	if c.Before != nil {
		s.before = c.Before.assets
	}
	s.site = site{Host: u.Host, Name: cmp.Or(c.Branding.Name, u.Host), Home: base + "/", Support: c.Branding.Support,
		Privacy: c.Branding.Privacy, issuer: u}
	if logo := c.Branding.Logo; logo != nil {
		s.site.Logo = s.serveAsset(base, "logo"+logoTypes[logo.image.contentType], logo.image)
	}
	if s.site.Style, err = s.addAsset(base, "style.css", "text/css; charset=utf-8"); err != nil {
		return nil, err
	}
	if s.site.Icon, err = s.addAsset(base, "mark.svg", "image/svg+xml"); err != nil {
		return nil, err
	}

	s.templates, err = allTemplates()
	return s, err
}

// lazyTemplate is a page that is parsed when somebody first sees it. All pages together are a fifth of the memory of a
// server to which nobody comes, and most servers never show most of them.
type lazyTemplate func() (*template.Template, error)

// allTemplates has the templates of each language, once.
var allTemplates = sync.OnceValues(func() (map[language.Tag]map[string]lazyTemplate, error) {
	in, err := allTexts()
	if err != nil {
		return nil, err
	}
	all := map[language.Tag]map[string]lazyTemplate{}
	for tag, tx := range in {
		if all[tag], err = parseTemplates(tx); err != nil {
			return nil, err
		}
	}
	return all, nil
})

// templateNames are the pages; each is layout.html and parts.html around one file.
var templateNames = []string{"signin", "consent", "error", "landing", "signout", "signedout", "device", "confirmdevice",
	"devicedone", "onward", "noaccess", "carry", "factor", "enrol", "welcome", "linkgone", "forgot"}

// parseTemplates gives each page its own copy of the layout, with texts in one language.
func parseTemplates(tx texts) (map[string]lazyTemplate, error) {
	layout, err := template.New("layout.html").Funcs(tx.funcs()).
		ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("parse layout: %w", err)
	}
	out := map[string]lazyTemplate{}
	for _, name := range slices.Concat(templateNames, accountTemplates) {
		out[name] = sync.OnceValues(func() (*template.Template, error) {
			t, err := layout.Clone()
			if err != nil {
				return nil, fmt.Errorf("clone layout for %s: %w", name, err)
			}
			if t, err = t.ParseFS(templateFiles, "templates/"+name+".html"); err != nil {
				return nil, fmt.Errorf("parse %s: %w", name, err)
			}
			return t, nil
		})
	}
	return out, nil
}

// view is what a template gets: Page is the page as the handler filled it,
// everything else is derived from it or belongs to the Set.
type view struct {
	Site   site
	Lang   language.Tag
	Switch []languageLink
	App    app
	Script template.JS
	Page   Page
}

// Render writes page with the given status, its headers and its policy. A page
// in a language that we do not speak is rendered in English. Nothing is written
// to w before the page is whole; an error is that of a template, and a bug of this package.
func (s *Set) Render(w http.ResponseWriter, status int, page Page) error {
	f := page.frame()
	lang := known(f.Lang)
	v := view{
		Site:   s.site,
		Lang:   lang,
		Switch: f.links(lang),
		App:    page.app(),
		Script: template.JS(page.script()),
		Page:   page,
	}
	var body bytes.Buffer
	name := page.template()
	t, err := s.templates[lang][name]()
	if err == nil {
		err = t.ExecuteTemplate(&body, "layout.html", v)
	}
	if err != nil {
		return fmt.Errorf("render page %s in %s: %w", name, lang, err)
	}
	h := w.Header()
	s.setHeaders(h, page)
	if d := page.retryAfter(); d > 0 {
		h.Set("Retry-After", strconv.FormatInt(ceilSeconds(d), 10))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a browser that has gone away is not a fault of ours
	return nil
}

// ceilSeconds rounds up, as a client that comes back early is refused again.
func ceilSeconds(d time.Duration) int64 {
	return int64(math.Ceil(d.Seconds()))
}
