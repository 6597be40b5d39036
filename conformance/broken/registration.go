package broken

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// registers answers registrations of a kind as if they were good.
func registers(name string, which func(map[string]any) bool) Fault {
	return Fault{Name: name, alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
		request := registration(p, r)
		if request == nil || !which(request) {
			return false
		}
		request["client_id"] = "made-up"
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(request)
		return true
	}}
}

// registration reads a registration request, and leaves it where it was; nil when it is none.
func registration(p *Provider, r *http.Request) map[string]any {
	if !p.at(r, "registration_endpoint") || r.Method != http.MethodPost {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	setBody(r, body)
	var request map[string]any
	if err != nil || json.Unmarshal(body, &request) != nil {
		return nil
	}
	return request
}

// registered changes answers to registrations.
func registered(name string, change func(resp *http.Response, answer map[string]any)) Fault {
	return Fault{Name: name, tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
		if !p.at(r, "registration_endpoint") || resp.StatusCode != http.StatusCreated {
			return body
		}
		return object(body, func(answer map[string]any) { change(resp, answer) })
	}}
}

func registrationFaults() []Fault {
	text := func(v any) string {
		s, _ := v.(string)
		return s
	}
	return []Fault{
		registers("registers-fragments", func(m map[string]any) bool {
			uris, _ := m["redirect_uris"].([]any)
			return len(uris) > 0 && strings.Contains(text(uris[0]), "#")
		}),
		registers("registers-plain-login", func(m map[string]any) bool {
			return strings.HasPrefix(text(m["initiate_login_uri"]), "http:")
		}),
		{Name: "registers-any-sector", ask: func(p *Provider, r *http.Request) {
			if request := registration(p, r); request != nil {
				delete(request, "sector_identifier_uri")
				delete(request, "subject_type")
				if body, err := json.Marshal(request); err == nil {
					setBody(r, body)
				}
			}
		}},
		registered("registered-with-200", func(resp *http.Response, _ map[string]any) { resp.StatusCode = http.StatusOK }),
		registered("registered-untyped", func(resp *http.Response, _ map[string]any) {
			resp.Header.Set("Content-Type", "text/plain")
		}),
		registered("registered-without-id", func(_ *http.Response, m map[string]any) { delete(m, "client_id") }),
		registered("registered-without-secret", func(_ *http.Response, m map[string]any) { delete(m, "client_secret") }),
		registered("registered-secret-without-end", func(_ *http.Response, m map[string]any) {
			delete(m, "client_secret_expires_at")
		}),
		registered("registered-without-management-token", func(_ *http.Response, m map[string]any) {
			delete(m, "registration_access_token")
		}),
		registered("registered-without-login", func(_ *http.Response, m map[string]any) { delete(m, "initiate_login_uri") }),
		registered("registered-without-logo", func(_ *http.Response, m map[string]any) { delete(m, "logo_uri") }),
		{Name: "redirect-query-ignored", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			first, _ := p.recall("redirect")
			if !p.at(r, "authorization_endpoint") || q.Get("redirect_uri") == first ||
				!strings.Contains(q.Get("redirect_uri"), "?") {
				return false
			}
			return p.sendBack(w, q, url.Values{"code": {"a-code-for-anybody"}})
		}, tell: keepRedirect},
		{Name: "redirect-guessed", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			first, known := p.recall("redirect")
			if !p.at(r, "authorization_endpoint") || q.Has("redirect_uri") || !known {
				return false
			}
			q.Set("redirect_uri", first)
			return p.sendBack(w, q, url.Values{"code": {"a-code-for-anybody"}})
		}, tell: keepRedirect},
		{Name: "client-keys-kept", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			return p.at(r, "token_endpoint") && strings.HasSuffix(keyOf(form(r).Get("client_assertion")), "-next") &&
				fails(w, http.StatusUnauthorized, "invalid_client")
		}},
		{Name: "client-keys-unfetched", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			return p.at(r, "token_endpoint") && keyOf(form(r).Get("client_assertion")) != "" &&
				fails(w, http.StatusUnauthorized, "invalid_client")
		}},
		{Name: "assertion-for-issuer-refused", alone: func(p *Provider, w http.ResponseWriter, r *http.Request) bool {
			return p.at(r, "token_endpoint") && claimsOf(form(r).Get("client_assertion"))["aud"] == p.issuer &&
				fails(w, http.StatusUnauthorized, "invalid_client")
		}},
	}
}

// keepRedirect remembers the first redirect URI that was registered.
func keepRedirect(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
	if p.at(r, "registration_endpoint") && resp.StatusCode == http.StatusCreated {
		return object(body, func(m map[string]any) {
			if uris, _ := m["redirect_uris"].([]any); len(uris) > 0 {
				first, _ := uris[0].(string)
				p.keep("redirect", first)
			}
		})
	}
	return body
}
