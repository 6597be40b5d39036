package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/server/oauth"
)

// Where the admin API is unless a flag says otherwise.
const (
	adminVariable = "WARIFU_ADMIN"
	tokenVariable = "WARIFU_ADMIN_TOKEN_FILE"
	defaultSocket = ".warifu/admin.sock"
)

// unreachableError means that no server answers. It leads to exit code 4.
type unreachableError struct {
	where string
	err   error
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("no warifu server answers at %s (%v): start one with warifu dev or warifu serve, or say where it is with --admin or %s",
		e.where, e.err, adminVariable)
}

func (e *unreachableError) Unwrap() error { return e.err }

// client speaks to a server's admin API.
type client struct {
	http  *http.Client
	base  string // http://HOST:PORT
	where string // as the person named it
	token string
}

func (c *cli) client() (*client, error) {
	where := cmp.Or(c.admin, c.env(adminVariable), defaultSocket)
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second}
	found := &client{http: &http.Client{Transport: transport, Timeout: 3 * time.Minute}, base: where, where: where}
	if strings.HasPrefix(where, "http://") || strings.HasPrefix(where, "https://") {
		u, err := url.Parse(where)
		if err != nil || u.Host == "" {
			return nil, usagef("the address of the admin API, %q, is not a URL", where)
		}
		found.base = u.Scheme + "://" + u.Host
		file := cmp.Or(c.tokenFile, c.env(tokenVariable))
		if file == "" {
			return nil, usagef("an admin API over TCP needs its bearer token: name the file with --admin-token-file or %s",
				tokenVariable)
		}
		if u.Scheme == "http" && !oauth.IsLoopback(u.Hostname()) {
			return nil, usagef("the admin API at %s is neither https nor on loopback: the token would cross the network unencrypted", where)
		}
		token, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read admin token: %w", err)
		}
		found.token = strings.TrimSpace(string(token))
		if found.token == "" || strings.ContainsFunc(found.token, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return nil, usagef("%s does not hold a token: it must be one line of visible ASCII characters", file)
		}
		return found, nil
	}
	path, err := socketAddress(strings.TrimPrefix(where, "unix://"))
	if err != nil {
		return nil, err
	}
	found.base = "http://warifu"
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", path)
	}
	return found, nil
}

// do makes a request and decodes the reply into out. An error reply is returned as an *admin.Problem.
func (a *client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return &unreachableError{a.where, op.Err}
		}
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // its text has the made-up host of a socket
		}
		return fmt.Errorf("ask the server at %s: %w", a.where, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read the reply of %s: %w", a.where, err)
	}
	if resp.StatusCode >= 300 {
		problem := &admin.Problem{}
		if err := json.Unmarshal(text, problem); err != nil || problem.Code == "" {
			return fmt.Errorf("%s answers %s: is this the admin API of warifu?", a.where, resp.Status)
		}
		return problem
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the reply of %s: %w", a.where, err)
	}
	return nil
}

// fetch gets one thing from the server that the command line points to.
func fetch[T any](ctx context.Context, c *cli, path string) (T, error) {
	var out T
	api, err := c.client()
	if err != nil {
		return out, err
	}
	return out, api.do(ctx, http.MethodGet, path, nil, &out)
}

// appPath is the path of an app in the admin API.
func appPath(name string) string { return "/v1/apps/" + url.PathEscape(name) }
