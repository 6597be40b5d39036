// Package outbound sends the requests that this server makes because a registration names an address: a client's keys
// (jwks_uri), logout tokens, sector identifiers, client metadata documents. The keys of issuers whose workloads are
// clients come by it as well.
//
// Whoever registers a client chooses such an address, so it must not become a way into the network of the server
// (SSRF):
//
//   - https, or also http where [Options.Allow] covers the address;
//   - the address is checked when it is dialled, after the name has been resolved, and each time: a name that resolves
//     to something else the second time gains nothing. Only global unicast addresses are dialled, and what
//     [Options.Allow] covers;
//   - redirects are not followed, proxies of the environment not used, cookies not kept;
//   - a reply is read to a limit of bytes, and the whole request has [Options.Timeout].
package outbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"
)

// Options of a [Client].
type Options struct {
	// Allow are networks that may be reached although they are not public, and by plain http as well: for tests,
	// development, and apps in the same private network.
	Allow []netip.Prefix
	// Own says that the operator has named the address, as that of a cluster: it may be anywhere, at https.
	Own bool
	// RootCAs vouch for https servers; nil means those of the system.
	RootCAs *x509.CertPool
	// Timeout of a whole request; 0 means 5 s.
	Timeout time.Duration
}

// Client sends requests. It is safe for concurrent use.
type Client struct {
	allow []netip.Prefix
	own   bool
	http  *http.Client
}

// ErrRefused: the address is not one that this server sends requests to.
var ErrRefused = errors.New("address refused")

// New makes a client.
func New(opts Options) *Client {
	c := &Client{allow: opts.Allow, own: opts.Own}
	timeout := opts.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	dialer := &net.Dialer{Timeout: timeout, ControlContext: c.control}
	c.http = &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy: nil, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig:     &tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout, MaxResponseHeaderBytes: 16 << 10,
			MaxIdleConnsPerHost: 1, MaxConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// special are networks that are global unicast by their bits and yet lead to no public host (RFC 6890 and its kin).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3fff::/20"),
}

// unicast6 is all of IPv6 that is given to hosts of the Internet (RFC 4291 section 2.4). What is beside it may lead
// anywhere, as the forms that hold an IPv4 address do.
var unicast6 = netip.MustParsePrefix("2000::/3")

// public reports whether an address is that of a host on the Internet.
func public(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && (ip.Is4() || unicast6.Contains(ip)) &&
		!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (c *Client) allowed(address netip.Addr) bool {
	return slices.ContainsFunc(c.allow, func(p netip.Prefix) bool { return p.Contains(address) })
}

// control is called with the address that is about to be dialled.
func (c *Client) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrRefused, address)
	}
	ip := at.Addr().Unmap().WithZone("")
	if !c.own && !public(ip) && !c.allowed(ip) {
		return fmt.Errorf("%w: %s is not public", ErrRefused, ip)
	}
	return nil
}

// check refuses what no request is sent to, before a name is resolved.
func (c *Client) check(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%w: not an absolute URL without user info and fragment", ErrRefused)
	}
	if u.Scheme == "https" {
		return u, nil
	}
	// Plain http only where the address itself is allowed; a name may resolve to anything, except for localhost
	// (RFC 6761 section 6.3). Which addresses are allowed says the configuration, on this machine as elsewhere.
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" {
		ip, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if u.Scheme != "http" || err != nil || !c.allowed(ip) {
		return nil, fmt.Errorf("%w: not https", ErrRefused)
	}
	return u, nil
}

// Reply is an answer, its body read.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// Get fetches a document of at most most bytes. A status other than 200 is an error, and so is a longer body.
func (c *Client) Get(ctx context.Context, address, accept string, most int64) (Reply, error) {
	return c.GetAs(ctx, "", address, accept, most)
}

// GetAs is Get with a bearer token; without one where that is empty.
func (c *Client) GetAs(ctx context.Context, bearer, address, accept string, most int64) (Reply, error) {
	reply, err := c.do(ctx, http.MethodGet, address, bearer, "", accept, nil, most)
	if err == nil && reply.Status != http.StatusOK {
		return reply, fmt.Errorf("get: status %d", reply.Status)
	}
	return reply, err
}

// Post sends a body and gives whatever comes back, of which at most 4 KiB.
func (c *Client) Post(ctx context.Context, address, contentType string, body []byte) (Reply, error) {
	return c.do(ctx, http.MethodPost, address, "", contentType, "", body, 4<<10)
}

// Close closes the connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) do(ctx context.Context, method, address, bearer, contentType, accept string, body []byte,
	most int64) (Reply, error) {
	u, err := c.check(address)
	if err != nil {
		return Reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return Reply{}, fmt.Errorf("make request: %w", err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	req.Header.Set("User-Agent", "warifu")
	resp, err := c.http.Do(req)
	if err != nil {
		// The error of net/http names the address, which may hold anything: only what lies below it is kept.
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return Reply{}, fmt.Errorf("%s %s: %w", method, u.Host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	read, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return Reply{}, fmt.Errorf("%s %s: %w", method, u.Host, err)
	}
	if int64(len(read)) > most {
		if method == http.MethodPost {
			read = read[:most]
		} else {
			return Reply{Status: resp.StatusCode, Header: resp.Header}, fmt.Errorf("%s %s: the reply is longer than %d bytes",
				method, u.Host, most)
		}
	}
	return Reply{Status: resp.StatusCode, Header: resp.Header, Body: read}, nil
}
