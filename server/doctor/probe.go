package doctor

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// Headers of the probe: what was sealed, on the way there, and what arrived, on the way back.
const (
	ProbeHeader   = "Warifu-Probe"
	ArrivedHeader = "Warifu-Arrived"
)

// ProbeLife is how long a probe is good for.
const ProbeLife = 2 * time.Minute

// Arrived is what a server saw of a request with a probe.
type Arrived struct {
	At   time.Time `json:"at"`   // of its clock
	Peer string    `json:"peer"` // who connected to it: an address with a port
	TLS  bool      `json:"tls"`  // whether TLS ended at the server itself
	Host string    `json:"host"`
	Path string    `json:"path"`
	// ForwardedFor and ForwardedProto are the headers X-Forwarded-For and -Proto as they came.
	ForwardedFor   []string `json:"forwardedFor,omitempty"`
	ForwardedProto []string `json:"forwardedProto,omitempty"`
	// Trusted: the peer is among web.trustedProxies. Address is that for whom the request counts.
	Trusted bool       `json:"trusted"`
	Address netip.Addr `json:"address,omitzero"`
}

// mostForwarded bounds what is said of a header again.
const mostForwarded = 1 << 10

// Arrival notes a request. What depends on the configuration is up to the caller.
func Arrival(r *http.Request, now time.Time) Arrived {
	return Arrived{At: now.UTC(), Peer: r.RemoteAddr, TLS: r.TLS != nil,
		Host: bounded(r.Host), Path: bounded(r.URL.Path),
		ForwardedFor:   boundedAll(r.Header.Values("X-Forwarded-For")),
		ForwardedProto: boundedAll(r.Header.Values("X-Forwarded-Proto"))}
}

func bounded(s string) string { return s[:min(len(s), mostForwarded)] }

func boundedAll(values []string) (out []string) {
	for _, v := range values[:min(len(values), 4)] {
		out = append(out, bounded(v))
	}
	return out
}

// Header is the value of [ArrivedHeader].
func (a Arrived) Header() string {
	text, _ := json.Marshal(a) // of plain values
	return base64.RawURLEncoding.EncodeToString(text)
}

// readArrived reads it.
func readArrived(header string) (Arrived, error) {
	var a Arrived
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		return a, fmt.Errorf("read what arrived: %w", err)
	}
	return a, nil
}
