package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// What is kept of requests and answers has no secret in it: what these names hold is left out, cookies keep their names
// only, and of a JWT header and claims are kept without the signature, so that it can be read but not used.
var secretNames = []string{
	"client_secret", "password", "code", "code_verifier", "access_token", "refresh_token", "id_token", "id_token_hint",
	"token",
	"logout_token", "client_assertion", "registration_access_token", "initial_access_token", "device_code", "request",
}

// longest text kept of a value, in bytes; hidden fields may be very long.
const longest = 300

func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + fmt.Sprintf("… (%d bytes)", len(s))
}

// longNames may hold something long that is not a secret. Under other names of parameters and fields it may be one,
// such as what a provider keeps in hidden fields of its pages.
var longNames = []string{
	"state", "nonce", "redirect_uri", "post_logout_redirect_uri", "scope", "claims", "iss",
	"request_uri", "code_challenge",
	"client_assertion_type", "error_description", "client_id", "acr_values",
}

// redact is a value under a name, as the log keeps it.
func redact(name, value string) string {
	if slices.Contains(secretNames, name) && value != "" {
		return redactSecret(value)
	}
	return shorten(value, longest)
}

// redactParameter is redact for parameters and fields.
func redactParameter(name, value string) string {
	if len(value) > 40 && !slices.Contains(longNames, name) {
		return redactSecret(value)
	}
	return redact(name, value)
}

func redactSecret(value string) string {
	parts := strings.Split(value, ".")
	if len(parts) == 3 {
		header, err := base64.RawURLEncoding.DecodeString(parts[0])
		claims, err2 := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil && err2 == nil && json.Valid(header) && json.Valid(claims) {
			return fmt.Sprintf("JWT %s %s", header, claims)
		}
	}
	return fmt.Sprintf("(%d bytes)", len(value))
}

func redactValues(values url.Values) map[string]string {
	if len(values) == 0 {
		return nil
	}
	out := map[string]string{}
	for name, all := range values {
		shown := make([]string, len(all))
		for i, v := range all {
			shown[i] = redactParameter(name, v)
		}
		out[name] = strings.Join(shown, " | ")
	}
	return out
}

// redactURL keeps the address; its parameters go through [redact].
func redactURL(u *url.URL) string {
	if u == nil {
		return ""
	}
	shown := *u
	shown.User = nil
	if u.RawQuery != "" {
		query := u.Query()
		for name, values := range query {
			for i := range values {
				values[i] = redactParameter(name, values[i])
			}
		}
		shown.RawQuery = query.Encode()
	}
	if text, err := url.QueryUnescape(shown.String()); err == nil {
		return text
	}
	return shown.String()
}

// redactHeader keeps what a header says, but for credentials.
func redactHeader(h http.Header) map[string]string {
	out := map[string]string{}
	for name, values := range h {
		shown := make([]string, len(values))
		for i, v := range values {
			switch name {
			case "Authorization":
				scheme, _, _ := strings.Cut(v, " ")
				v = scheme + " (redacted)"
			case "Dpop-Nonce":
				v = redactSecret(v)
			case "Cookie":
				v = cookieNames(v)
			case "Set-Cookie":
				pair, rest, _ := strings.Cut(v, ";")
				cookie, _, _ := strings.Cut(pair, "=")
				v = cookie + "=(redacted);" + rest
			case "Location":
				if u, err := url.Parse(v); err == nil {
					v = redactURL(u)
				}
			}
			shown[i] = shorten(v, longest)
		}
		out[name] = strings.Join(shown, " | ")
	}
	return out
}

func cookieNames(header string) string {
	var names []string
	for _, pair := range strings.Split(header, ";") {
		name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
		names = append(names, name+"=(redacted)")
	}
	return strings.Join(names, "; ")
}

// redactJSON walks through what was decoded.
func redactJSON(name string, v any) any {
	switch v := v.(type) {
	case string:
		return redact(name, v)
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			out[key] = redactJSON(key, value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			out[i] = redactJSON(name, value)
		}
		return out
	}
	return v
}

func requestEntry(req *http.Request, body string) Entry {
	e := Entry{At: time.Now().UTC(), Kind: "http", Method: req.Method, URL: redactURL(req.URL),
		RequestHeader: redactHeader(req.Header)}
	if body == "" {
		return e
	}
	if strings.HasPrefix(req.Header.Get("Content-Type"), "application/json") {
		e.RequestBody = redactText(body)
		return e
	}
	if values, err := url.ParseQuery(body); err == nil {
		e.RequestForm = redactValues(values)
	}
	return e
}

func answerEntry(e *Entry, got *reply) {
	e.Status, e.ResponseHeader = got.status, redactHeader(got.header)
	switch kind := got.header.Get("Content-Type"); {
	case strings.Contains(kind, "json"):
		e.ResponseBody = redactText(string(got.body))
	case strings.Contains(kind, "jwt"):
		e.ResponseBody = redactSecret(string(got.body))
	case strings.Contains(kind, "html"):
		p := parsePage(got)
		e.ResponseBody = shorten(p.text(), 2*longest)
	}
}

func redactText(body string) string {
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return fmt.Sprintf("not JSON (%d bytes)", len(body))
	}
	text, err := json.MarshalIndent(redactJSON("", v), "", "  ")
	if err != nil {
		return ""
	}
	return shorten(string(text), 6000)
}

func callbackEntry(a *answer) Entry {
	return Entry{
		At: time.Now().UTC(), Kind: "received", Method: a.method, URL: redactURL(a.url), RequestForm: redactValues(a.form),
		Text: "the browser comes to the relying party",
	}
}
