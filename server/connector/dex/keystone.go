package dex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/dexidp/dex/connector/keystone"
	"github.com/google/uuid"

	"github.com/warifu/warifu/server/connector"
)

// keystoneStands asks Keystone whether it still has a user, and as one who may sign in. To Dex's code every answer but
// 200 is a user who is gone, and one who is disabled is as good as any.
func keystoneStands(ctx context.Context, c *keystone.Config, userID string) error {
	client := &http.Client{Transport: bounded{}}
	host := strings.TrimSuffix(c.Host, "/")
	domain := map[string]string{"name": c.Domain}
	if c.Domain == "default" || uuid.Validate(c.Domain) == nil {
		domain = map[string]string{"id": c.Domain}
	}
	asks, err := json.Marshal(map[string]any{"auth": map[string]any{"identity": map[string]any{
		"methods": []string{"password"},
		"password": map[string]any{"user": map[string]any{
			"name": c.AdminUsername, "domain": domain, "password": c.AdminPassword,
		}},
	}}})
	if err != nil {
		return fmt.Errorf("admin token: %w", err)
	}
	resp, err := sendJSON(ctx, client, http.MethodPost, host+"/v3/auth/tokens", "", asks)
	if err != nil {
		return fmt.Errorf("admin token: %w", err)
	}
	_ = resp.Body.Close()
	token := resp.Header.Get("X-Subject-Token")
	if resp.StatusCode != http.StatusCreated || token == "" {
		return fmt.Errorf("admin token: status %d", resp.StatusCode)
	}
	resp, err = sendJSON(ctx, client, http.MethodGet, host+"/v3/users/"+url.PathEscape(userID), token, nil)
	if err != nil {
		return fmt.Errorf("get user: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		User *struct {
			Enabled *bool `json:"enabled"`
		} `json:"user"`
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return connector.Refuse("Keystone no longer has the user")
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("get user: status %d", resp.StatusCode)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("get user: decode: %w", err)
	}
	switch {
	case answer.User == nil:
		return plain{errors.New("reading the user: the answer is not understood")}
	case answer.User.Enabled != nil && !*answer.User.Enabled:
		return connector.Refuse("Keystone has disabled the user")
	}
	return nil
}

func sendJSON(
	ctx context.Context, client *http.Client, method, address, token string, body []byte,
) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	return client.Do(r)
}
