package broken

import (
	"net/http"
	"strings"
)

// member changes metadata.
func member(name string, change func(map[string]any)) Fault {
	return Fault{Name: name, tell: func(p *Provider, r *http.Request, _ *http.Response, body []byte) []byte {
		if p.at(r, "discovery") {
			return object(body, change)
		}
		return body
	}}
}

func metadataFaults() []Fault {
	return []Fault{
		member("metadata-issuer-other", put("issuer", "https://another.example.com")),
		member("metadata-endpoint-plain", func(m map[string]any) {
			m["token_endpoint"] = strings.Replace(m["token_endpoint"].(string), "https:", "http:", 1)
		}),
		member("metadata-without-rs256", put("id_token_signing_alg_values_supported", []string{"ES256"})),
		member("metadata-without-jwks", drop("jwks_uri")),
		member("metadata-without-response-types", drop("response_types_supported")),
		member("metadata-without-subject-types", drop("subject_types_supported")),
		member("metadata-without-openid", put("scopes_supported", []string{"profile"})),
		member("metadata-list-is-text", put("grant_types_supported", "authorization_code")),
		member("metadata-locale-unknown", put("ui_locales_supported", []string{"en_US-"})),
		member("metadata-member-unknown", put("x_vendor_feature", true)),
		member("metadata-without-logout", drop("end_session_endpoint")),
		{Name: "metadata-is-html", tell: func(p *Provider, r *http.Request, resp *http.Response, body []byte) []byte {
			if p.at(r, "discovery") {
				resp.Header.Set("Content-Type", "text/html")
			}
			return body
		}},
		{Name: "keys-private", tell: func(p *Provider, r *http.Request, _ *http.Response, body []byte) []byte {
			if p.at(r, "jwks_uri") {
				return p.publish(body, p.key)
			}
			return body
		}},
		{Name: "keys-nameless", tell: func(p *Provider, r *http.Request, _ *http.Response, body []byte) []byte {
			if p.at(r, "jwks_uri") {
				return object(body, func(set map[string]any) {
					for _, k := range set["keys"].([]any) {
						delete(k.(map[string]any), "kid")
					}
				})
			}
			return body
		}},
	}
}
