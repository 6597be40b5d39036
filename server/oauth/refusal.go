package oauth

import (
	"net/url"
	"strings"
	"time"
)

// Refusal is an [Error] with the request that it answered: what an operator wants to know of a refusal afterwards.
// Like the Error it holds nothing secret.
type Refusal struct {
	RequestID string    // the id in the header X-Request-Id of the reply, and on the error page
	At        time.Time // when it was refused
	// Endpoint names what was asked: the path of an endpoint without the issuer's, such as /oauth/token.
	Endpoint string
	ClientID string // the client_id of the request, whether a client has it or not; empty when none was sent
	App      string // the client's app; empty when the client is unknown or belongs to no app
	Error    Error
	// Beyond: the address had been refused more than its share before, or it is a [Error.Step].
	Beyond bool
	// Params are the parameters of the request that explain it, from [TellingParams].
	Params map[string]string
}

// telling are the parameters that say what was asked for. None of them is meant to hold a credential, none is about the
// user, and none is an opaque value of the client, such as state, which may hold anything.
var telling = [...]string{
	"grant_type", "response_type", "response_mode", "redirect_uri", "scope", "resource", "audience", "prompt",
	"max_age", "display", "acr_values", "code_challenge_method", "token_type_hint", "subject_token_type",
	"requested_token_type", "client_assertion_type", "post_logout_redirect_uri",
}

// TellsURI reports whether the value of a parameter is to be an address.
func TellsURI(name string) bool {
	switch name {
	case "redirect_uri", "post_logout_redirect_uri", "resource", "audience", "target_link_uri":
		return true
	}
	return false
}

// TellingParams picks the parameters that an operator may see from those of a request: a list of names that is
// closed, so an unknown parameter stays out. Credentials in their values are blanked, in addresses above all
// ([ShownURI]). The values of one that came more than once are joined by spaces.
func TellingParams(params url.Values) map[string]string {
	var out map[string]string
	for _, name := range telling {
		if values := params[name]; len(values) > 0 {
			if out == nil {
				out = make(map[string]string)
			}
			shown := make([]string, len(values))
			for i, value := range values {
				if shown[i] = Redact(value); TellsURI(name) {
					shown[i] = ShownURI(value)
				}
			}
			out[name] = strings.Join(shown, " ")
		}
	}
	return out
}
