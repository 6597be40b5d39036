package runtimecontainers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
)

const (
	defaultProbeTimeout = time.Minute
	defaultSteady       = time.Second
)

// settings are the config as written; see the package documentation.
type settings struct {
	Host         string       `json:"host"`
	TLS          *tlsSettings `json:"tls"`
	Probe        string       `json:"probe"`
	ProbeTimeout duration     `json:"probeTimeout"`
	Steady       duration     `json:"steady"`
}

// tlsSettings are files in PEM.
type tlsSettings struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// duration is a time.Duration written as "10s".
type duration time.Duration

// UnmarshalJSON reads what [time.ParseDuration] does, and wants more than nothing.
func (d *duration) UnmarshalJSON(text []byte) error {
	var written string
	if err := json.Unmarshal(text, &written); err != nil {
		return fmt.Errorf("a duration is written as \"10s\": %w", err)
	}
	parsed, err := time.ParseDuration(written)
	if err != nil {
		return err
	}
	if parsed <= 0 {
		return fmt.Errorf("duration %q is not positive", written)
	}
	*d = duration(parsed)
	return nil
}

func parseSettings(config json.RawMessage) (settings, error) {
	s := settings{Probe: probeSteady, ProbeTimeout: duration(defaultProbeTimeout), Steady: duration(defaultSteady)}
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("%w: the config of the runtime containers is {\"host\": \"unix:///run/podman/podman.sock\"}: %w",
			plugins.ErrInvalid, err)
	}
	if err := s.checkHost(); err != nil {
		return s, fmt.Errorf("%w: %w", plugins.ErrInvalid, err)
	}
	if _, err := parseProbe(s.Probe); err != nil {
		return s, fmt.Errorf("%w: %w", plugins.ErrInvalid, err)
	}
	return s, nil
}

// checkHost wants a local socket, or TLS: whoever listens on the way would read
// every secret and own the machine.
func (s settings) checkHost() error {
	u, err := url.Parse(s.Host)
	if err != nil {
		return fmt.Errorf("host %q is not a URL", s.Host)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		if s.TLS != nil {
			return fmt.Errorf("tls is for tcp:// hosts, not for %q", s.Host)
		}
		return nil
	case u.Scheme != "tcp" || u.Port() == "":
		return fmt.Errorf("host %q is neither unix:///path/to.sock nor tcp://host:port", s.Host)
	case s.TLS == nil && !oauth.IsThisMachine(u.Hostname()):
		return fmt.Errorf("host %q is another machine: it needs tls with ca, cert and key", s.Host)
	case s.TLS != nil && (s.TLS.CA == "" || s.TLS.Cert == "" || s.TLS.Key == ""):
		return fmt.Errorf("tls needs the files ca, cert and key")
	}
	return nil
}

const probeSteady = "steady"

// probe says how a container shows that it may take over.
type probe struct {
	scheme string // "http", "tcp" or probeSteady
	host   string // empty: the container's own address
	port   string
	path   string // with query
}

// parseProbe reads a probe as config and labels write it.
func parseProbe(text string) (probe, error) {
	if text == probeSteady {
		return probe{scheme: probeSteady}, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "tcp" || u.Port() == "" || u.User != nil || u.Fragment != "" {
		return probe{}, fmt.Errorf("probe %q is not http://[host]:port/path, tcp://[host]:port or %q", text, probeSteady)
	}
	if u.Scheme == "tcp" && strings.Trim(u.RequestURI(), "/") != "" {
		return probe{}, fmt.Errorf("probe %q has a path, but tcp has none", text)
	}
	return probe{scheme: u.Scheme, host: u.Hostname(), port: u.Port(), path: u.RequestURI()}, nil
}

// address is where to dial for a container with this address of its own.
func (p probe) address(own string) string {
	host := p.host
	if host == "" {
		host = own
	}
	return net.JoinHostPort(host, p.port)
}
