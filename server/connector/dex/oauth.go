package dex

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	dex "github.com/dexidp/dex/connector"
	"github.com/dexidp/dex/connector/oauth"
	"github.com/dexidp/dex/pkg/httpclient"
	"golang.org/x/oauth2"
)

// oauthUpstream is any upstream of OAuth 2.0 that tells of its users at an address, with Dex's keys and what Dex makes
// of an answer. It is ours because Dex's asks for the user without a deadline, so that an upstream that hangs holds on
// to everything that asked it.
type oauthUpstream struct {
	config *oauth.Config
	oauth2 *oauth2.Config
	client *http.Client
}

var _ dex.CallbackConnector = (*oauthUpstream)(nil)

func openOAuth(c *oauth.Config, callback string) (dex.Connector, error) {
	client, err := httpclient.NewHTTPClient(c.RootCAs, c.InsecureSkipVerify)
	if err != nil {
		return nil, judged(err, opening)
	}
	return &oauthUpstream{
		config: c, client: boundedClient(client),
		oauth2: &oauth2.Config{
			ClientID: c.ClientID, ClientSecret: c.ClientSecret, RedirectURL: callback, Scopes: c.Scopes,
			Endpoint: oauth2.Endpoint{AuthURL: c.AuthorizationURL, TokenURL: c.TokenURL},
		},
	}, nil
}

func (u *oauthUpstream) LoginURL(_ dex.Scopes, _, state string) (string, []byte, error) {
	return u.oauth2.AuthCodeURL(state), nil, nil
}

func (u *oauthUpstream) HandleCallback(_ dex.Scopes, _ []byte, r *http.Request) (dex.Identity, error) {
	ctx := context.WithValue(r.Context(), oauth2.HTTPClient, u.client)
	token, err := u.oauth2.Exchange(ctx, r.URL.Query().Get("code"))
	if err != nil {
		return dex.Identity{}, fmt.Errorf("get token: %w", err)
	}
	claims, err := u.userInfo(ctx, token)
	if err != nil {
		return dex.Identity{}, fmt.Errorf("userinfo: %w", err)
	}
	return u.identity(claims, token.AccessToken)
}

func (u *oauthUpstream) userInfo(ctx context.Context, token *oauth2.Token) (map[string]any, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.config.UserInfoURL, nil)
	if err != nil {
		return nil, err
	}
	token.SetAuthHeader(r)
	resp, err := u.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var claims map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&claims); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return claims, nil
}

// identity is what Dex makes of the claims. A number as an id is written as Dex writes it, large ones with an exponent,
// so that apps see the same user.
func (u *oauthUpstream) identity(claims map[string]any, accessToken string) (who dex.Identity, err error) {
	mapping := u.config.ClaimMapping
	named := func(key, usual string) any {
		if key == "" {
			key = usual
		}
		return claims[key]
	}
	switch id := named(u.config.UserIDKey, "id").(type) {
	case string, float64:
		who.UserID = fmt.Sprint(id)
	default:
		return dex.Identity{}, plain{errors.New("reading the claims of the user: userIDKey names neither text nor number")}
	}
	who.Username, _ = named(mapping.UserNameKey, "user_name").(string)
	who.PreferredUsername, _ = named(mapping.PreferredUsernameKey, "preferred_username").(string)
	who.Email, _ = named(mapping.EmailKey, "email").(string)
	who.EmailVerified, _ = named(mapping.EmailVerifiedKey, "email_verified").(bool)
	groups := map[string]bool{}
	told := func(claim any) {
		list, _ := claim.([]any)
		for _, item := range list {
			if object, is := item.(map[string]any); is {
				item = object["name"]
			}
			if name, is := item.(string); is {
				groups[name] = true
			}
		}
	}
	told(named(mapping.GroupsKey, "groups"))
	claims = claimsIn(accessToken)
	told(named(mapping.GroupsKey, "groups"))
	who.Groups = slices.Sorted(maps.Keys(groups))
	return who, nil
}

// claimsIn are the claims of an access token that is a JWT. It has come from the upstream itself, over TLS, so its
// signature is not asked for.
func claimsIn(token string) (claims map[string]any) {
	parts := strings.Split(token, ".")
	if len(parts) < 2 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		return nil
	}
	return claims
}
