package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/warifu/warifu/server/oauth"
)

// Outside is an issuer as apps and browsers see it from here.
type Outside struct {
	Issuer string
	// Roots vouch for its certificate; nil means those of the system.
	Roots *x509.CertPool
	// Probe gets a probe of the server; "" if there is none, which the proxy then is not asked about. It may be nil.
	Probe func(ctx context.Context) string
	// Keys are the kids with which the server signs; nil if they are not known. It may be nil.
	Keys func(ctx context.Context) []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// outside is an issuer that is looked at, and what several checks need of it, which is got once.
type outside struct {
	Outside
	issuer *url.URL
	client *http.Client

	visit func() visit // to discovery
	asked func() visit // the same with a probe
}

// pathDiscovery is OpenID Connect Discovery 1.0 section 4.
const pathDiscovery = "/.well-known/openid-configuration"

// outsidePatience: a name is asked for, and a few connections are made, one after the other.
const outsidePatience = 15 * time.Second

// Checks look at the issuer. They share what they get, so they are made once, and ctx is for all of them.
func (o Outside) Checks(ctx context.Context) []Check {
	issuer, err := oauth.ParseIssuer(o.Issuer)
	if err != nil {
		return []Check{{Name: "issuer", Look: func(context.Context) ([]Finding, error) {
			remedy := "write it as in https://id.example.com"
			var known *oauth.IssuerError
			if errors.As(err, &known) {
				if err = errors.New(known.Reason); known.Nearest != "" {
					remedy = "write " + known.Nearest
				}
			}
			return []Finding{wrong(remedy, "the issuer %q %s", o.Issuer, err)}, nil
		}}}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &outside{Outside: o, issuer: issuer}
	s.client = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
			TLSHandshakeTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
		Timeout:       outsidePatience / 2,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.visit = sync.OnceValue(func() visit { return s.follow(ctx, o.Issuer+pathDiscovery, nil) })
	s.asked = sync.OnceValue(func() visit { return s.probe(ctx) })
	checks := []Check{
		{Name: "dns", Look: s.names}, {Name: "certificate", Look: s.certificates},
		{Name: "discovery", Look: s.discovery},
		{Name: "clock", Look: s.clock}, {Name: "proxy", Look: s.proxy}, {Name: "http", Look: s.plain},
	}
	for i := range checks {
		checks[i].Within = outsidePatience
	}
	return checks
}

func (s *outside) host() string { return s.issuer.Hostname() }

func (s *outside) port() string {
	switch {
	case s.issuer.Port() != "":
		return s.issuer.Port()
	case s.issuer.Scheme == "http":
		return "80"
	}
	return "443"
}

// addresses are those of the issuer's name.
func (s *outside) addresses(ctx context.Context) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(s.host()); err == nil {
		return []netip.Addr{ip}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", s.host())
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, err
}

// names looks whether the issuer's name leads somewhere.
func (s *outside) names(ctx context.Context) ([]Finding, error) {
	if _, err := netip.ParseAddr(s.host()); err == nil {
		return []Finding{fine("the issuer is an IP address, so it has no name (and no passkeys)")}, nil
	}
	found, err := s.addresses(ctx)
	var unknownName *net.DNSError
	switch {
	case errors.As(err, &unknownName) && unknownName.IsNotFound:
		return []Finding{wrong("add A and AAAA records for it, or correct issuer in the configuration",
			"the name %s does not resolve", s.host())}, nil
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", s.host(), err)
	}
	shown := make([]string, len(found))
	inner := true
	for i, ip := range found {
		shown[i] = ip.String()
		inner = inner && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast())
	}
	slices.Sort(shown)
	more := ""
	if inner {
		more = ", which can be reached from this network alone"
	}
	return []Finding{fine("%s is %s%s", s.host(), strings.Join(shown, ", "), more)}, nil
}

// mostAddresses of a name are connected to.
const mostAddresses = 8

// certificates connects to each address of the issuer, and looks at what is presented there.
func (s *outside) certificates(ctx context.Context) ([]Finding, error) {
	if s.issuer.Scheme == "http" {
		return []Finding{fine("the issuer is on this machine alone, and needs no certificate")}, nil
	}
	found, err := s.addresses(ctx)
	if err != nil {
		return nil, nil // names says so
	}
	found = found[:min(len(found), mostAddresses)]
	type presented struct {
		chain []*x509.Certificate
		err   error
	}
	got := make([]presented, len(found))
	var all sync.WaitGroup
	for i, ip := range found {
		all.Go(func() { got[i].chain, got[i].err = s.present(ctx, ip) })
	}
	all.Wait()
	var out []Finding
	seen := make(map[string]bool) // leaves
	reached := 0
	for i, g := range got {
		at := net.JoinHostPort(found[i].String(), s.port())
		if g.err != nil {
			out = append(out, Finding{State: Warning, Seen: fmt.Sprintf("nobody answers at %s with TLS: %s",
				at, reason(g.err)),
				Remedy: "see that the server or proxy listens there, and that a firewall lets it pass; or take the " +
					"address out of the DNS"})
			continue
		}
		reached++
		if leaf := g.chain[0]; !seen[string(leaf.Raw)] {
			seen[string(leaf.Raw)] = true
			out = append(out, s.judge(g.chain)...)
		}
	}
	if reached == 0 {
		for i := range out {
			out[i].State = Wrong
		}
	}
	if len(seen) > 1 {
		out = append(out, warning("renew it everywhere", "%d different certificates are presented, by address",
			len(seen)))
	}
	return out, nil
}

func (s *outside) judge(presented []*x509.Certificate) []Finding {
	now, leaf := s.Now(), presented[0]
	what := "the certificate that " + s.issuer.Host + " presents"
	out := slices.Concat(span(what, leaf, now,
		"no client that checks it can connect"), chain(what, s.host(), presented, s.Roots, now))
	if len(out) == 0 {
		out = append(out, fine("%s ends %s (%s), by %s", what, in(now, leaf.NotAfter), date(leaf.NotAfter),
			nameOf(leaf.Issuer.CommonName, leaf.Issuer.String())))
	}
	return out
}

// present gets the certificates that an address presents for the issuer's name, whatever they are.
func (s *outside) present(ctx context.Context, ip netip.Addr) ([]*x509.Certificate, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second},
		Config: &tls.Config{ServerName: s.host(), InsecureSkipVerify: true}} // judge verifies, and says what is wrong
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), s.port()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return nil, errors.New("it presents no certificate")
	}
	return chain, nil
}

// reason is an error without what was asked, which the reader knows.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err.Error()
	}
	return err.Error()
}

// visit is a request that was followed by hand.
type visit struct {
	hops  []hop // redirects
	loop  bool  // they come back to where they have been
	last  string
	reply *http.Response // to last, without its body; nil if there was none
	body  []byte
	local string // our end of the connection
	began time.Time
	took  time.Duration // of the last request
	err   error
}

type hop struct {
	status   int
	from, to string
}

// mostHops are more than any browser follows without a word.
const mostHops = 10

// mostBody is more than any document.
const mostBody = 1 << 20

// follow gets an address, and whatever it is redirected to.
func (s *outside) follow(ctx context.Context, address string, header http.Header) visit {
	v := visit{last: address}
	been := map[string]bool{address: true}
	for {
		s.get(ctx, &v, header)
		if v.err != nil || v.reply.StatusCode/100 != 3 || v.reply.Header.Get("Location") == "" {
			return v
		}
		next, err := v.reply.Location()
		if err != nil {
			v.err = fmt.Errorf("it is redirected to %q, which is no address", v.reply.Header.Get("Location"))
			return v
		}
		next.Fragment = ""
		v.hops = append(v.hops, hop{v.reply.StatusCode, v.last, next.String()})
		if v.last = next.String(); been[v.last] || len(v.hops) == mostHops {
			v.loop = true
			return v
		}
		been[v.last] = true
	}
}

// get makes one request.
func (s *outside) get(ctx context.Context, v *visit, header http.Header) {
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { v.local = c.Conn.LocalAddr().String() }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, v.last, nil)
	if err != nil {
		v.err = err
		return
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Cache-Control", "no-cache")
	req.Header.Set("User-Agent", "warifu-doctor")
	v.began = s.Now()
	began := time.Now()
	if v.reply, v.err = s.client.Do(req); v.err != nil {
		return
	}
	v.took = time.Since(began)
	defer func() { _ = v.reply.Body.Close() }()
	v.body, v.err = io.ReadAll(io.LimitReader(v.reply.Body, mostBody))
}

// discovery looks whether apps find the issuer's metadata, at once and as it has to be.
func (s *outside) discovery(ctx context.Context) ([]Finding, error) {
	v := s.visit()
	if out := s.redirects(v); out != nil {
		return out, nil
	}
	if v.err != nil {
		var untrusted *tls.CertificateVerificationError
		if errors.As(v.err, &untrusted) {
			return []Finding{wrong("see the findings about the certificate", "apps do not get %s: %s",
				v.last, reason(untrusted.Err))}, nil
		}
		return []Finding{wrong(
			"see that the server runs, that the proxy passes requests on to it, and that a firewall lets them pass",
			"nobody answers at %s: %s", v.last, reason(v.err))}, nil
	}
	switch code := v.reply.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusNotFound && ours(v.reply.Header):
		return []Finding{s.stripped(v)}, nil
	case code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout:
		return []Finding{wrong("see that the server runs, and that the proxy has its address (web.http)",
			"a proxy answers at %s, and reaches no server (%d)", v.last, code)}, nil
	default:
		return []Finding{wrong("have the proxy pass everything below "+s.Issuer+" on to this server, without a "+
			"sign-in or another check of its own",
			"%s answers %d, and not this server", v.last, code)}, nil
	}
	var told struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(v.body, &told); err != nil {
		return []Finding{wrong("have the proxy pass everything below "+s.Issuer+" on to this server",
			"what is at %s is not the metadata of an issuer", v.last)}, nil
	}
	if told.Issuer != s.Issuer {
		return []Finding{wrong("make them the same (issuer in the configuration, or the address that apps are "+
			"given), or have the proxy lead to this server",
			"%s says that the issuer is %q: apps that are given %s refuse that", v.last, told.Issuer, s.Issuer)}, nil
	}
	out := []Finding{fine("apps find the issuer at %s, in %s", v.last, v.took.Round(time.Millisecond))}
	return append(out, s.published(ctx, told.JWKS)...), nil
}

// ours reports whether a reply looks like one of warifu.
func ours(h http.Header) bool {
	return h.Get("X-Request-Id") != "" && h.Get("X-Content-Type-Options") == "nosniff" &&
		h.Get("Referrer-Policy") == "no-referrer"
}

// stripped is about a server that does not know its own address.
func (s *outside) stripped(v visit) Finding {
	const remedy = "have the proxy pass the path on as it is (nginx: proxy_pass http://…:5556; without a path or " +
		"slash at its end)"
	arrived := s.arrived()
	if arrived != nil && arrived.Path != s.issuer.Path+pathDiscovery {
		return wrong(remedy, "the proxy changes the path: %s arrives at the server as %s",
			s.issuer.Path+pathDiscovery, arrived.Path)
	}
	if s.issuer.Path != "" {
		return wrong(remedy, "the server answers at %s, and does not know that address: a proxy seems to take away "+
			"%s, or the server has another issuer",
			v.last, s.issuer.Path)
	}
	return wrong("see that the proxy leads to the server with this issuer, and passes the path on as it is",
		"a server answers at %s, and does not know that address: its issuer is another one", v.last)
}

// redirects says what is wrong with redirects of discovery: there are to be none, because most programs follow none.
func (s *outside) redirects(v visit) []Finding {
	if len(v.hops) == 0 {
		return nil
	}
	var way []string
	same := true
	for _, h := range v.hops {
		way = append(way, fmt.Sprintf("%s -%d->", h.from, h.status))
		same = same && hostAndPath(h.from) == hostAndPath(h.to)
	}
	const few = 4
	if len(way) > few {
		way = append(way[:few], "…")
	}
	shown := strings.Join(append(way, v.last), " ")
	const forwarded = "have it redirect only what has come by http: if TLS ends before it, by X-Forwarded-Proto " +
		"(a CDN that speaks http to it, such as Cloudflare's Flexible, is to speak https: Full (strict))"
	switch first := v.hops[0]; {
	case v.loop && same && strings.HasPrefix(v.hops[0].from, "http:"):
		return []Finding{wrong("something in front of the server redirects requests back to where they came from: "+
			"have it pass them on; if it is to speak https, issuer in the configuration begins with https",
			"redirects go in a circle: %s", shown)}
	case v.loop && same:
		return []Finding{wrong(
			"the proxy takes requests that come by https for http, and sends them to https again: "+forwarded,
			"redirects go in a circle: %s", shown)}
	case v.loop:
		return []Finding{wrong("find out which proxy answers at each address, and have one of them stop",
			"redirects go in a circle: %s", shown)}
	case same && strings.HasPrefix(first.from, "https:") && strings.HasPrefix(first.to, "http:"):
		return []Finding{wrong("something behind the proxy believes that requests come by http: have the proxy pass "+
			"X-Forwarded-Proto on, and nothing behind it redirect", "https is redirected to http: %s", shown)}
	case hostAndPath(first.from) != hostAndPath(first.to) && sameHost(first.from, first.to):
		return []Finding{wrong(
			"have the proxy pass the path on as it is, without a redirect to a sign-in or another page",
			"discovery is redirected to another path, which apps do not follow: %s", shown)}
	}
	return []Finding{wrong("make the host to which it is redirected the issuer, or have the proxy pass requests on "+
		"in place of redirecting them",
		"discovery is redirected, which apps do not follow: %s", shown)}
}

// hostAndPath is an address without scheme and usual port.
func hostAndPath(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Hostname() + u.EscapedPath()
}

func sameHost(a, b string) bool {
	one, err := url.Parse(a)
	other, wrongToo := url.Parse(b)
	return err == nil && wrongToo == nil && one.Hostname() == other.Hostname()
}

// published looks whether the keys with which the server signs are among those that apps get.
func (s *outside) published(ctx context.Context, address string) []Finding {
	var keys []string
	if s.Keys != nil {
		keys = s.Keys(ctx)
	}
	v := s.follow(ctx, address, nil)
	var set struct {
		Keys []struct {
			KID string `json:"kid"`
		} `json:"keys"`
	}
	if v.err != nil || v.reply.StatusCode != http.StatusOK || json.Unmarshal(v.body, &set) != nil {
		return []Finding{wrong("have the proxy pass it on to this server",
			"apps cannot fetch the keys at %s, so they reject every token", address)}
	}
	for _, kid := range keys {
		if !slices.ContainsFunc(set.Keys, func(k struct {
			KID string `json:"kid"`
		}) bool {
			return k.KID == kid
		}) {
			return []Finding{wrong("if a cache is between (it says how old it is by the header Age), have it keep "+
				"nothing for more than five minutes; "+
				"otherwise another server answers there: have the proxy lead to this one",
				"the key %s, with which the server signs, is not among those at %s%s",
				kid, address, aged(v.reply.Header))}
		}
	}
	return nil
}

func aged(h http.Header) string {
	if age := h.Get("Age"); age != "" {
		return fmt.Sprintf(" (Age: %q)", age)
	}
	return ""
}

// How far clocks may be apart: codes of authenticator apps stand half a minute, and apps that check when a token was
// issued seldom allow more than one.
const (
	clockWarning = 5 * time.Second
	clockWrong   = 30 * time.Second
)

// clock compares the clock of this machine with that of the server, or of the proxy before it.
func (s *outside) clock(context.Context) ([]Finding, error) {
	v, whose, coarse := s.visit(), "the clock at "+s.issuer.Host, 500*time.Millisecond // a Date is in whole seconds
	if v.reply == nil {
		return nil, nil // discovery says why
	}
	at, err := http.ParseTime(v.reply.Header.Get("Date"))
	if arrived := s.arrived(); arrived != nil {
		v, whose, at, err, coarse = s.asked(), "the clock of the server", arrived.At, nil, 0
	} else if age := v.reply.Header.Get("Age"); age != "" && age != "0" {
		return nil, nil // it was said some time ago
	}
	if err != nil {
		return nil, nil // nobody has to say what time it is
	}
	apart := at.Add(coarse).Sub(v.began.Add(v.took / 2))
	way, by := "ahead of", apart
	if by < 0 {
		way, by = "behind", -by
	}
	seen := fmt.Sprintf("%s is %s %s that of this machine", whose, by.Round(100*time.Millisecond), way)
	const remedy = "have both set by NTP (timedatectl set-ntp true; chronyc tracking)"
	switch {
	case by >= clockWrong:
		return []Finding{wrong(remedy, "%s: tokens and one-time codes are refused", seen)}, nil
	case by >= clockWarning:
		return []Finding{warning(remedy, "%s", seen)}, nil
	}
	return []Finding{fine("the clocks here and at %s agree", s.issuer.Host)}, nil
}

// plain looks what the issuer's host answers without TLS: nothing, or a redirect to https.
func (s *outside) plain(ctx context.Context) ([]Finding, error) {
	if s.issuer.Scheme != "https" || s.issuer.Port() != "" {
		return nil, nil
	}
	return s.unprotected(ctx, "http://"+s.issuer.Host+s.issuer.Path+pathDiscovery), nil
}

func (s *outside) unprotected(ctx context.Context, address string) []Finding {
	v := visit{last: address}
	var nameless *net.DNSError
	if s.get(ctx, &v, nil); errors.As(v.err, &nameless) {
		return nil // names says so
	} else if v.err != nil {
		return []Finding{fine("nothing is offered without TLS")}
	}
	const remedy = "have port 80 redirect everything to https, or close it"
	to, err := v.reply.Location()
	switch {
	case v.reply.StatusCode == http.StatusOK && json.Valid(v.body):
		return []Finding{warning(remedy,
			"%s answers without TLS: whoever types the address sends passwords that others can read", address)}
	case err == nil && to.Scheme == "https" && to.Hostname() == s.host():
		return []Finding{fine("http is redirected to https")}
	case err == nil:
		return []Finding{warning(remedy, "%s is redirected to %s, and not to the issuer", address, to)}
	}
	return []Finding{fine("http is answered with %d", v.reply.StatusCode)}
}
