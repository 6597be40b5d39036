package dex

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	dex "github.com/dexidp/dex/connector"

	"github.com/warifu/warifu/server/connector"
)

// plain is an error whose text is ours: it names no person and quotes no upstream.
type plain struct{ error }

func (p plain) Unwrap() error { return p.error }

// moment is when an upstream says no: the same words may mean something else then.
type moment int

const (
	signingIn moment = iota
	askingAgain
	opening
)

// verdicts are the words by which Dex's connectors say no to somebody. Their errors have no types but one, and all else
// is a fault: a person is never turned away for what is wrong with an upstream.
var verdicts = []struct {
	words  *regexp.Regexp
	again  bool // only when a connector is asked again
	reason string
}{
	{regexp.MustCompile(`is not in any of the required (groups|teams)|not in required orgs or teams|` +
		`does not belong to any of the approved groups`), false,
		"the user is in none of the groups that the configuration asks for"},
	{regexp.MustCompile(`unexpected hd claim`), false, "the user is of none of the domains in hostedDomains"},
	{regexp.MustCompile(`user has no (verified|confirmed), primary email`), false,
		"the user has no verified primary e-mail address"},
	{regexp.MustCompile(`oauth2: "(invalid_grant|bad_verification_code|bad_refresh_token)"|"error": ?"invalid_grant"`),
		false,
		"the upstream does not accept the code or the token"},
	{regexp.MustCompile(`failed to verify ID Token: oidc: (expected audience|id token issued by|token is expired|` +
		`malformed jwt|failed to verify signature)`), false, "the ID token of the upstream is not valid"},
	{regexp.MustCompile(`crowd: get user .*: 404 |INACTIVE_ACCOUNT|INVALID_USER_AUTHENTICATION`), true,
		"the upstream no longer has the user, or not as active"},
	{regexp.MustCompile(`(get user|get profile|get groups|get teams|get orgs): .*\b401 |InvalidAuthenticationToken`), true,
		"the upstream no longer accepts the user's token"},
}

// judged makes of an error of Dex's code a verdict ([connector.RefusedError]) or a fault, in words that name nobody.
func judged(err error, when moment) error {
	var ours plain
	var refused *connector.RefusedError
	var groups *dex.UserNotInRequiredGroupsError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused), errors.As(err, &ours), errors.Is(err, context.Canceled),
		errors.Is(err, context.DeadlineExceeded) && strings.HasPrefix(err.Error(), "there was no answer"):
		return err
	case errors.As(err, &groups):
		return connector.Refuse("%s", verdicts[0].reason)
	}
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	if when != opening {
		for _, v := range verdicts {
			if (!v.again || when == askingAgain) && v.words.MatchString(text) {
				return connector.Refuse("%s", v.reason)
			}
		}
	}
	return plain{errors.New(wordsOf(text))}
}

// stages and causes are the words that may be told of an error. Dex's errors quote what upstreams answer, names and DNs
// among it; what is not in these lists is not told.
var stages = []struct{ words, plain string }{
	{"failed to connect", "connecting"},
	{"start TLS failed", "beginning TLS (startTLS)"},
	{"initial anonymous bind failed", "signing in to the directory as nobody (bindDN is empty)"},
	{"initial bind for user", "signing in to the directory as bindDN"},
	{"failed to bind as dn", "checking the password"},
	{"missing following required attribute", "an entry of a user lacks an attribute that the configuration names"},
	{"missing required attribute", "an entry of a group has no value for groupSearch.nameAttr"},
	{"filter returned multiple", "several entries fit one name: the search for users is too wide"},
	{"query groups", "searching for groups"},
	{"search failed", "searching"},
	{"search with filter", "searching for users (userSearch)"},
	{"get token", "getting a token"},
	{"refresh token", "getting a token by the refresh token"},
	{"verify ID Token", "checking the ID token"},
	{"no id_token", "the answer has no ID token"},
	{"userinfo", "reading the user"},
	{"get user", "reading the user"},
	{"get profile", "reading the user"},
	{"fetching email", "reading the e-mail address"},
	{"claim", "reading the claims of the user"},
	{"groups", "reading the groups"},
	{"get teams", "reading the teams"},
	{"get orgs", "reading the organizations"},
	{"user workspaces", "reading the workspaces"},
	{"admin token", "getting a token for keystoneUsername"},
	{"required HTTP header", "the proxy has not sent the header that names the user (userHeader)"},
	{"application default credentials", "finding the default credentials of Google"},
	{"metadata server", "asking the metadata server of Google"},
	{"directory service", "preparing to read the groups of Google"},
	{"failed to get provider", "reading the discovery document"},
	{"through endpoint", "reading the discovery document"},
	{"failed to query OpenShift endpoint", "reading the discovery document"},
	{"crowd: failed to authenticate", "signing in to Crowd"},
	{"dex failed to authenticate Crowd", "Crowd does not accept clientID and clientSecret"},
	{"dex is forbidden", "Crowd does not take requests from this address"},
	{"client assertion", "reading the file in clientAssertion"},
}

var causes = []struct{ words, plain string }{
	{"connection refused", "connection refused"},
	{"connection reset", "connection reset"},
	{"broken pipe", "connection reset"},
	{"no such host", "the name of the host is not known"},
	{"no route to host", "no route to the host"},
	{"network is unreachable", "the network is unreachable"},
	{"i/o timeout", "timed out"},
	{"context deadline exceeded", "timed out"},
	{"Client.Timeout exceeded", "timed out"},
	{"TLS handshake timeout", "timed out"},
	{"unknown authority", "the certificate is of an authority that is not trusted"},
	{"certificate has expired", "the certificate has expired, or is not valid yet"},
	{"certificate is valid for", "the certificate is for another name"},
	{"doesn't contain any IP SANs", "the certificate is for another name"},
	{"not valid for any names", "the certificate is for another name"},
	{"first record does not look like a TLS handshake", "it does not speak TLS there"},
	{"server gave HTTP response to HTTPS client", "it does not speak TLS there"},
	{"malformed HTTP", "it does not speak HTTP there"},
	{tooMuch, "the answer is too long"},
	{elsewhere, "it leads to another host, where nothing secret is sent"},
	{"permission denied", "permission denied"},
	{"no such file", "there is no such file"},
	{"unexpected EOF", "the connection ended early"},
	{"connection closed", "the connection ended early"},
	{"EOF", "the connection ended early"},
	{"invalid character", "the answer is not understood"},
	{"cannot unmarshal", "the answer is not understood"},
	{"cannot parse", "the answer is not understood"},
	{"missing access_token", "the answer has no access token"},
	{"decode", "the answer is not understood"},
	{"unmarshal", "the answer is not understood"},
}

var (
	statusWords = regexp.MustCompile(`(?:^|: |status |error |token: )([1-5][0-9][0-9])(?: |:|$)`)
	ldapWords   = regexp.MustCompile(`LDAP Result Code ([0-9]{1,5}) "([A-Za-z /-]{1,60})"`)
	oauthWords  = regexp.MustCompile(`oauth2: "([a-z_]{1,40})"`)
)

// oauthCodes are the error codes that a token endpoint may answer with, and which are told (RFC 6749 section 5.2).
var oauthCodes = []string{"invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type",
	"invalid_scope", "incorrect_client_credentials", "redirect_uri_mismatch"}

// wordsOf says of an error of Dex's code what can be told of it.
func wordsOf(text string) string {
	var said []string
	for _, s := range stages {
		if strings.Contains(text, s.words) {
			said = append(said, s.plain)
			break
		}
	}
	if m := ldapWords.FindStringSubmatch(text); m != nil {
		said = append(said, "the directory says "+m[2]+" ("+m[1]+")")
		if m[1] != "200" { // the code of go-ldap for all of the network
			return strings.Join(said, ": ")
		}
		said = said[:len(said)-1]
	}
	if m := oauthWords.FindStringSubmatch(text); m != nil && slices.Contains(oauthCodes, m[1]) {
		said = append(said, "the upstream says "+m[1])
	} else if m := statusWords.FindStringSubmatch(text); m != nil {
		status, _ := strconv.Atoi(m[1])
		said = append(said, strings.TrimSpace("the upstream answers "+m[1]+" "+http.StatusText(status)))
	} else {
		for _, c := range causes {
			if strings.Contains(text, c.words) {
				said = append(said, c.plain)
				break
			}
		}
	}
	if len(said) == 0 {
		return "it failed; only the upstream's own message, which is not repeated here, says how"
	}
	return strings.Join(said, ": ")
}

// refusedAtUpstream makes an error of the parameters with which an upstream sends a browser back (RFC 6749 section
// 4.1.2.1; OpenID Connect Core 1.0 section 3.1.2.6); nil if they name none.
func refusedAtUpstream(code string) error {
	switch code {
	case "":
		return nil
	case "access_denied", "user_cancelled_login", "user_cancelled_authorize": // the latter are LinkedIn's
		return &connector.RefusedError{Cancelled: true, Reason: "the upstream says " + code}
	case "login_required", "interaction_required", "consent_required", "account_selection_required":
		return connector.Refuse("the upstream says %s", code)
	case "server_error", "temporarily_unavailable", "invalid_request", "unauthorized_client",
		"unsupported_response_type", "invalid_scope", "redirect_uri_mismatch", "application_suspended":
		return plain{errors.New("the upstream says " + code)}
	}
	return plain{errors.New("the upstream answers with an error that is not among those of OAuth 2.0")}
}
