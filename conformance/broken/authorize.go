package broken

import (
	"bytes"
	"html"
	"net/http"
	"net/url"
	"strings"
)

// parameter changes the parameters of authorization requests.
func parameter(name string, change func(url.Values)) Fault {
	return Fault{Name: name, ask: func(p *Provider, r *http.Request) {
		if !p.at(r, "authorization_endpoint") {
			return
		}
		if r.Method == http.MethodPost {
			values := form(r)
			change(values)
			setForm(r, values)
			return
		}
		values := r.URL.Query()
		change(values)
		r.URL.RawQuery = values.Encode()
	}}
}

// refuses answers authorization requests of a kind with an error.
func refuses(name string, which func(url.Values) bool, code string) Fault {
	return Fault{Name: name, alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		if !p.at(r, "authorization_endpoint") || !which(q) {
			return false
		}
		return p.sendBack(w, q, url.Values{"error": {code}})
	}}
}

// sendBack redirects to the redirect URI of a request, whatever that is.
func (p *Provider) sendBack(w http.ResponseWriter, request, answer url.Values) bool {
	to, err := url.Parse(request.Get("redirect_uri"))
	if err != nil {
		return false
	}
	answer.Set("state", request.Get("state"))
	answer.Set("iss", p.issuer)
	query := to.Query()
	for name, values := range answer {
		query[name] = values
	}
	to.RawQuery = query.Encode()
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusSeeOther)
	return true
}

func without(names ...string) func(url.Values) {
	return func(v url.Values) {
		for _, name := range names {
			v.Del(name)
		}
	}
}

func requestFaults() []Fault {
	return []Fault{
		{Name: "redirect-anywhere", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			if !p.at(r, "authorization_endpoint") || strings.HasSuffix(q.Get("redirect_uri"), "/callback") {
				return false
			}
			return p.sendBack(w, q, url.Values{"code": {"a-code-for-anybody"}})
		}},
		{Name: "redirect-outside-object", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			if !p.at(r, "authorization_endpoint") || !q.Has("request") || !q.Has("redirect_uri") {
				return false
			}
			return p.sendBack(w, q, url.Values{"code": {"a-code-for-anybody"}})
		}},
		{Name: "redirect-error-before-check", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			if !p.at(r, "authorization_endpoint") || strings.HasSuffix(q.Get("redirect_uri"), "/callback") {
				return false
			}
			return p.sendBack(w, q, url.Values{"error": {"invalid_request"}})
		}},
		parameter("response-type-assumed", func(v url.Values) {
			if !v.Has("response_type") {
				v.Set("response_type", "code")
			}
		}),
		parameter("prompt-login-ignored", func(v url.Values) {
			if v.Get("prompt") == "login" {
				v.Del("prompt")
			}
		}),
		parameter("prompt-none-ignored", func(v url.Values) {
			if v.Get("prompt") == "none" {
				v.Del("prompt")
			}
		}),
		parameter("max-age-ignored", without("max_age")),
		parameter("max-age-forgets", func(v url.Values) {
			if v.Has("max_age") {
				v.Set("prompt", "login")
			}
		}),
		parameter("claims-ignored", without("claims")),
		parameter("form-post-ignored", without("response_mode")),
		parameter("request-object-ignored", without("request")),
		{Name: "sessions-forgotten", ask: func(p *Provider, r *http.Request) {
			if p.at(r, "authorization_endpoint") {
				r.Header.Del("Cookie")
			}
		}},
		refuses("nonce-required", func(v url.Values) bool { return !v.Has("nonce") }, "invalid_request"),
		refuses("unknown-parameter-refused", func(v url.Values) bool { return v.Has("extra") }, "invalid_request"),
		refuses("display-refused", func(v url.Values) bool { return v.Has("display") }, "invalid_request"),
		refuses("login-hint-refused", func(v url.Values) bool { return v.Has("login_hint") }, "invalid_request"),
		refuses("ui-locales-refused", func(v url.Values) bool { return v.Has("ui_locales") }, "server_error"),
		refuses("claims-locales-refused", func(v url.Values) bool { return v.Has("claims_locales") }, "invalid_request"),
		refuses("acr-values-refused", func(v url.Values) bool { return v.Has("acr_values") }, "invalid_request"),
		refuses("hint-refused", func(v url.Values) bool { return v.Has("id_token_hint") }, "login_required"),
		refuses("scope-order-matters", func(v url.Values) bool { return !strings.HasPrefix(v.Get("scope"), "openid") },
			"invalid_scope"),
		{Name: "authorize-by-get-only", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			if !p.at(r, "authorization_endpoint") || r.Method == http.MethodGet {
				return false
			}
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return true
		}},
	}
}

// response changes the parameters of authorization responses: those of a redirect, and those of a page that goes on by
// itself.
func response(name string, change func(p *Provider, v url.Values)) Fault {
	return Fault{Name: name, tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
		_, content, onward := bytes.Cut(body, []byte(`<meta http-equiv="refresh" content="0;url=`))
		escaped, _, _ := bytes.Cut(content, []byte(`"`))
		location := resp.Header.Get("Location")
		if onward {
			location = html.UnescapeString(string(escaped))
		}
		to, err := url.Parse(location)
		if err != nil || to.Host == "" || strings.HasPrefix(to.String(), p.issuer) {
			return body
		}
		query := to.Query()
		if !query.Has("code") && !query.Has("error") {
			return body
		}
		change(p, query)
		to.RawQuery = query.Encode()
		if onward {
			return bytes.ReplaceAll(body, escaped, []byte(html.EscapeString(to.String())))
		}
		resp.Header.Set("Location", to.String())
		return body
	}}
}

func responseFaults() []Fault {
	return []Fault{
		response("state-dropped", func(_ *Provider, v url.Values) { v.Del("state") }),
		response("state-cut", func(_ *Provider, v url.Values) {
			v.Set("state", v.Get("state")[:min(64, len(v.Get("state")))])
		}),
		response("iss-missing", func(_ *Provider, v url.Values) { v.Del("iss") }),
		response("iss-mixed-up", func(_ *Provider, v url.Values) { v.Set("iss", "https://another.example.com") }),
		response("error-unknown", func(_ *Provider, v url.Values) {
			if v.Has("error") {
				v.Set("error", "server_error")
			}
		}),
		response("error-described-badly", func(_ *Provider, v url.Values) { v.Set("error_description", `say "friend"`) }),
		{Name: "code-guessable", ask: func(p *Provider, r *http.Request) {
			if !p.at(r, "token_endpoint") {
				return
			}
			values := form(r)
			if code, ok := p.recall(values.Get("code")); ok {
				values.Set("code", code)
				setForm(r, values)
			}
		}, tell: response("", func(p *Provider, v url.Values) {
			p.keep("1234", v.Get("code"))
			v.Set("code", "1234")
		}).tell},
	}
}
