package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	// systemSocket is that of a server which the system runs (manifests/deploy/systemd).
	systemSocket = "/run/warifu/admin.sock"
)

// unreachableError means that no server answers. It leads to exit code 4.
type unreachableError struct {
	where string
	err   error
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("no warifu server answers at %s (%v): start one with warifu dev or warifu serve, or say where it "+
		"is with --admin or %s",
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
	named := cmp.Or(c.admin, c.env(adminVariable))
	where := cmp.Or(named, usualSocket())
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
			return nil, usagef("the admin API at %s is neither https nor on loopback: the token would cross the network "+
				"unencrypted", where)
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
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil && named == "" && where == defaultSocket {
			err = ours(conn)
			if err != nil {
				_ = conn.Close() // nothing was said
			}
		}
		return conn, err
	}
	return found, nil
}

// ours refuses a server of another user that was found in the current directory: anybody can put a socket into a
// directory like /tmp, and would be told what the command says.
func ours(conn net.Conn) error {
	local, is := conn.(*net.UnixConn)
	if !is {
		return nil
	}
	switch peer := peerOf(local); peer {
	case unknownPeer, "uid:0", fmt.Sprintf("uid:%d", os.Geteuid()):
		return nil
	default:
		return usagef("the server at %s in this directory is run by another user (%s): if it is the one that you mean, "+
			"name it with --admin %s", defaultSocket, peer, defaultSocket)
	}
}

// usualSocket is that of a server in this directory, or else the system's.
func usualSocket() string {
	_, here := os.Lstat(defaultSocket)
	_, system := os.Lstat(systemSocket)
	if here != nil && system == nil {
		return systemSocket
	}
	return defaultSocket
}

// do makes a request and decodes the reply into out. An error reply is returned as an *admin.Problem.
func (a *client) do(ctx context.Context, method, path string, in, out any) error {
	_, err := a.ask(ctx, method, path, in, out)
	return err
}

// ask is do, and returns the header of the reply.
func (a *client) ask(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	resp, err := a.send(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("read the reply of %s: %w", a.where, err)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("read the reply of %s: %w", a.where, err)
	}
	return resp.Header, nil
}

// send makes a request whose reply is not an error.
func (a *client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
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
			return nil, &unreachableError{a.where, op.Err}
		}
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // its text has the made-up host of a socket
		}
		return nil, fmt.Errorf("ask the server at %s: %w", a.where, ended(err))
	}
	if resp.StatusCode < http.StatusMultipleChoices {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("read the reply of %s: %w", a.where, err)
	}
	problem := &admin.Problem{}
	if err := json.Unmarshal(text, problem); err != nil || problem.Code == "" {
		return nil, fmt.Errorf("%s answers %s: is this the admin API of warifu?", a.where, resp.Status)
	}
	return nil, problem
}

// ended says what the end of a connection means.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it ended the connection before the reply was complete, and its log says why (%w)", err)
	}
	return err
}

// download is a request whose reply goes to w, however long that takes. It returns how many bytes it was.
func (a *client) download(ctx context.Context, method, path string, w io.Writer) (int64, error) {
	resp, err := a.patient().send(ctx, method, path, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	size, err := io.Copy(w, resp.Body)
	var unwritten *fs.PathError
	if errors.As(err, &unwritten) {
		return 0, err
	}
	if err != nil {
		return 0, fmt.Errorf("read the reply of %s: %w", a.where, ended(err))
	}
	return size, nil
}

// stream is a request whose reply has no end but that of ctx. The caller closes it.
func (a *client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := a.patient().send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// patient is the client, for replies that may take any time.
func (a *client) patient() *client {
	patient, transfer := *a, *a.http
	transfer.Timeout = 0
	patient.http = &transfer
	return &patient
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

// eachPart gets a list from the server, part by part, and gives each to do.
func eachPart[T any](ctx context.Context, api *client, path string, do func(part []T) error) error {
	for path != "" {
		var list []T
		header, err := api.ask(ctx, http.MethodGet, path, nil, &list)
		if err != nil {
			return err
		}
		if err := do(list); err != nil {
			return err
		}
		path = admin.Next(header)
	}
	return nil
}

// fetchAll gets all parts of a list, for what needs it as a whole.
func fetchAll[T any](ctx context.Context, api *client, path string) (list []T, err error) {
	err = eachPart(ctx, api, path, func(part []T) error {
		list = append(list, part...)
		return nil
	})
	return list, err
}

// appPath is the path of an app in the admin API.
func appPath(name string) string { return "/v1/apps/" + url.PathEscape(name) }
