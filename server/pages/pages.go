// Package pages draws what a person sees: sign-in, consent, the code of a device,
// errors, the front page of the issuer and the page after signing out.
//
// Use it from the handlers of server, and only for answers that a browser
// shows. A handler fills one of the page types ([SignIn], [Consent], [Error],
// [Landing], [SignOut], [SignedOut], [FormPost]) and calls [Set.Render]; nothing here reads a request,
// keeps state, or decides what comes next.
//
// # Flow
//
// [New] parses the templates once for each language and fingerprints the
// stylesheet. [Set.Lang] picks the language from what the request asks for.
// Render executes the template into a buffer, sets the headers and writes, so a
// fault never leaves half a page. [Set.Assets] serves the stylesheet and the
// icon under [Set.AssetsPath].
//
// # Invariants
//
//   - There is no script, and the policy allows none: but for [FormPost], which
//     has one line, allowed by its hash. Every page works without scripts, with
//     a keyboard, a screen reader, and in forced colours.
//   - Whatever comes from an app, a person or a request is text. html/template
//     escapes it, [plain] takes out what would reorder or hide it, and an
//     address is only linked when [webURL] says that it is plain https (or
//     loopback http).
//   - The consent page names the host that gets the data, next to the name that
//     the developer chose: the host is a fact, the name is a claim.
//   - Nothing is fetched here. A logo is loaded by the browser, without a
//     referrer, from the one origin that the page's policy allows.
//   - Every text is in locales/en.yaml and locales/ja.yaml, under the same keys.
package pages

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"
)

//go:embed templates/*.html
var templateFiles embed.FS

// Set is every page in every language, ready to be rendered. It is immutable
// and safe for concurrent use.
type Set struct {
	site      site
	log       *slog.Logger
	assets    map[string]asset
	templates map[language.Tag]map[string]*template.Template
}

// site is what the pages know about the issuer that they belong to.
type site struct {
	Host  string // as people see it in the address bar, with a port if any
	Home  string // path of the landing page
	Style string // path of the stylesheet
	Icon  string // path of the icon

	issuer *url.URL
}

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

	// Log gets the faults of rendering. They are bugs of this package.
	Log *slog.Logger
}

// New parses the templates and texts. It fails when the issuer is not an
// absolute http or https URL; any other error is a fault of the embedded files.
func New(c Config) (*Set, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("parse issuer: %w", err)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("issuer %q is not an absolute http or https URL", c.Issuer)
	}

	base := strings.TrimSuffix(u.EscapedPath(), "/")
	s := &Set{
		log:       c.Log,
		assets:    map[string]asset{},
		templates: map[language.Tag]map[string]*template.Template{},
	}
	s.site = site{Host: u.Host, Home: base + "/", issuer: u}
	if s.site.Style, err = s.addAsset(base, "style.css", "text/css; charset=utf-8"); err != nil {
		return nil, err
	}
	if s.site.Icon, err = s.addAsset(base, "mark.svg", "image/svg+xml"); err != nil {
		return nil, err
	}

	bundle, err := loadBundle()
	if err != nil {
		return nil, err
	}
	for _, tag := range Languages {
		if s.templates[tag], err = parseTemplates(newTexts(bundle, tag)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// templateNames are the pages; each is layout.html and parts.html around one file.
var templateNames = []string{"signin", "consent", "error", "landing", "signout", "signedout", "device", "confirmdevice", "devicedone", "formpost"}

// parseTemplates gives each page its own copy of the layout, with texts in one language.
func parseTemplates(tx texts) (map[string]*template.Template, error) {
	layout, err := template.New("layout.html").Funcs(tx.funcs()).
		ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("parse layout: %w", err)
	}
	out := map[string]*template.Template{}
	for _, name := range templateNames {
		t, err := layout.Clone()
		if err != nil {
			return nil, fmt.Errorf("clone layout for %s: %w", name, err)
		}
		if out[name], err = t.ParseFS(templateFiles, "templates/"+name+".html"); err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
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
	Page   Page
}

// Render writes page with the given status, its headers and its policy. A page
// in a language that we do not speak is rendered in English. Nothing is written
// to w before the page is whole; a template that fails is logged and answered
// with a bare 500.
func (s *Set) Render(w http.ResponseWriter, status int, page Page) {
	f := page.frame()
	lang := known(f.Lang)
	v := view{
		Site:   s.site,
		Lang:   lang,
		Switch: f.links(lang),
		App:    page.app(),
		Page:   page,
	}
	var body bytes.Buffer
	name := page.template()
	if err := s.templates[lang][name].ExecuteTemplate(&body, "layout.html", v); err != nil {
		s.log.Error("cannot render a page", "page", name, "lang", lang.String(), "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	s.setHeaders(h, page)
	if d := page.retryAfter(); d > 0 {
		h.Set("Retry-After", strconv.FormatInt(ceilSeconds(d), 10))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a browser that has gone away is not a fault of ours
}

// ceilSeconds rounds up, as a client that comes back early is refused again.
func ceilSeconds(d time.Duration) int64 {
	return int64(math.Ceil(d.Seconds()))
}
