package conformance

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// browser is a user agent without scripts: it keeps cookies, follows redirects, loads frames, sends forms that only
// carry something on, and uses the provider's pages as the configuration says.
//
// Requests to the relying party's origin are not sent: they are the answer.
type browser struct {
	t   *trial
	jar http.CookieJar

	signIns int // how often the user proved who they are
}

// answer is where a visit ended: at the relying party, or on a page of the provider.
type answer struct {
	method      string
	url         *url.URL // at the relying party; nil when the visit ended on a page
	contentType string
	form        url.Values // of the body
	page        *page      // on which the visit ended
	// pages are all that were seen, frames what they embedded of the relying party.
	pages  []*page
	frames []*url.URL
}

// maxHops is how many requests one visit may take.
const maxHops = 30

// visit opens an address and goes on until the relying party is reached, or a page that no step fits. Steps are taken
// unless look is set: then the first page is the end.
func (b *browser) visit(method string, address *url.URL, form url.Values, look bool) *answer {
	t := b.t
	a := &answer{}
	used := map[string]int{}
	for range maxHops {
		if t.ours(address) {
			a.method, a.url, a.form = method, address, form
			if method == http.MethodPost {
				a.contentType = "application/x-www-form-urlencoded"
			}
			t.append(callbackEntry(a))
			return a
		}
		got := b.load(method, address, form)
		if location := got.header.Get("Location"); location != "" && got.status >= 300 && got.status < 400 {
			next, err := got.address.Parse(location)
			if err != nil {
				t.stopf("", "the provider redirects to %q, which is not a URL: %v", location, err)
			}
			if next.Fragment == "" {
				next.Fragment = got.address.Fragment // RFC 9110 section 10.2.2
			}
			if got.status != http.StatusTemporaryRedirect && got.status != http.StatusPermanentRedirect {
				method, form = http.MethodGet, nil
			}
			address = next
			continue
		}
		p := parsePage(got)
		a.pages = append(a.pages, p)
		if kind, _, _ := mime.ParseMediaType(got.header.Get("Content-Type")); kind != "text/html" &&
			kind != "application/xhtml+xml" {
			a.page = p
			return a
		}
		for _, frame := range p.frames() {
			if t.ours(frame) {
				a.frames = append(a.frames, frame)
				t.append(callbackEntry(&answer{method: http.MethodGet, url: frame}))
			}
		}
		var on bool
		if method, address, form, on = b.next(p, look, used); !on {
			a.page = p
			return a
		}
	}
	t.stopf("", "the provider sends the browser in a circle: more than %d requests", maxHops)
	return nil
}

// next is where a page leads to: by itself, or because the user does something.
func (b *browser) next(p *page, look bool, used map[string]int) (method string, address *url.URL,
	fields url.Values, on bool) {
	if to := p.refresh(); to != nil {
		return http.MethodGet, to, nil, true
	}
	forms := p.forms()
	for _, f := range forms { // response_mode=form_post, and what logs out of other places
		if f.onward() && b.t.ours(f.action) {
			return f.method, f.action, f.fields, true
		}
	}
	if look {
		return "", nil, nil, false
	}
	for _, step := range b.t.cfg.Pages {
		for _, f := range forms {
			if !slices.Contains(f.names, step.When) {
				continue
			}
			if used[step.When]++; used[step.When] > 2 {
				return "", nil, nil, false // the page comes back again and again: what is done there does not help
			}
			if step.SignIn {
				b.signIns++
			}
			method, address, fields = f.sent(step)
			return method, address, fields, true
		}
	}
	return "", nil, nil, false
}

// sent is what the form sends when it is used as a step says.
func (f *form) sent(step Step) (string, *url.URL, url.Values) {
	fields := url.Values{}
	for name, values := range f.fields {
		fields[name] = values
	}
	for name, value := range step.Fill {
		fields.Set(name, value)
	}
	press := step.Press
	if press == "" {
		press = step.When
	}
	if name, value, ok := strings.Cut(press, "="); ok {
		fields.Set(name, value)
	} else if len(f.buttons) > 0 && f.buttons[0].name != "" {
		fields.Set(f.buttons[0].name, f.buttons[0].value)
	}
	if f.method == http.MethodPost {
		return f.method, f.action, fields
	}
	to := *f.action
	to.RawQuery = fields.Encode()
	return http.MethodGet, &to, nil
}

// load sends one request of the browser.
func (b *browser) load(method string, address *url.URL, form url.Values) *reply {
	plain := *address
	plain.Fragment = ""
	body := ""
	if method == http.MethodPost {
		body = form.Encode()
	}
	req, err := http.NewRequest(method, plain.String(), strings.NewReader(body))
	if err != nil {
		b.t.stopf("", "the browser cannot go to %q: %v", plain.String(), err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	req.Header.Set("Accept-Language", "en")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range b.jar.Cookies(&plain) {
		req.AddCookie(c)
	}
	got := b.t.send(req, body)
	b.jar.SetCookies(&plain, (&http.Response{Header: got.header}).Cookies())
	got.address = address
	return got
}

// ours says whether an address is the relying party's: its origin is that of a redirect URI or of what the provider
// calls.
func (t *trial) ours(u *url.URL) bool {
	for _, own := range t.cfg.origins() {
		if u.Scheme == own.Scheme && u.Host == own.Host {
			return true
		}
	}
	return false
}

// origins of the relying party.
func (c *Config) origins() []*url.URL {
	var found []*url.URL
	addresses := []string{c.BaseURL}
	clients := []*Client{&c.Clients.Client, &c.Clients.Client2, &c.Clients.SecretPost, c.Clients.Backchannel,
		c.Clients.Frontchannel}
	for _, client := range clients {
		if client != nil {
			addresses = append(addresses, client.RedirectURI, client.PostLogoutRedirectURI, client.FrontchannelLogoutURI)
		}
	}
	for _, address := range addresses {
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			found = append(found, u)
		}
	}
	return found
}
