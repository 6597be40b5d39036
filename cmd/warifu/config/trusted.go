package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/workload"
)

// What a cluster gives its pods (Kubernetes: Accessing the Kubernetes API from a Pod).
const (
	inCluster      = "https://kubernetes.default.svc"
	inClusterCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	inClusterToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// TrustedNames are the issuers of workloads; none, and not unknown, where nobody is trusted.
func (cfg *Config) TrustedNames() []string {
	names := []string{}
	for _, issuer := range cfg.TrustedIssuers {
		names = append(names, issuer.Issuer)
	}
	return names
}

// api is how to reach the cluster; nil where none is meant.
func (c Cluster) api() *workload.Kubernetes {
	switch {
	case !c.Enabled:
		return nil
	case c.Server == "":
		k := &workload.Kubernetes{Server: inCluster, CAFile: c.CAFile, TokenFile: c.TokenFile}
		if k.CAFile == "" {
			k.CAFile = inClusterCA
		}
		if k.TokenFile == "" {
			k.TokenFile = inClusterToken
		}
		return k
	}
	return &workload.Kubernetes{Server: c.Server, CAFile: c.CAFile, TokenFile: c.TokenFile}
}

func (r *reader) checkTrustedIssuers(cfg *Config) {
	for i, t := range cfg.TrustedIssuers {
		at := fmt.Sprintf("trustedIssuers[%d]", i)
		if r.required(at+".issuer", t.Issuer, "the iss of its tokens") {
			r.checkTrustedName(at+".issuer", cfg, i)
		}
		var sources []string
		for _, source := range []struct {
			key string
			set bool
		}{{"jwksURI", t.JWKSURI != ""}, {"jwksFile", t.JWKSFile != ""}, {"kubernetes", t.Kubernetes.Enabled}} {
			if source.set {
				sources = append(sources, source.key)
			}
		}
		switch {
		case len(sources) > 1:
			r.fault(at+"."+sources[1], "pair", "", "and %s exclude each other: the keys are in one place", sources[0])
		case len(sources) == 0 && oauth.IsTrustDomain(t.Issuer):
			r.fault(at, "required", "", "needs jwksFile or jwksURI: a trust domain says nowhere where its keys are")
		case t.Kubernetes.Enabled && oauth.IsTrustDomain(t.Issuer):
			r.fault(at+".kubernetes", "misplaced", "", "is of no use: a cluster's tokens have an iss, which is an https URL")
		}
		r.checkHTTPS(at+".jwksURI", t.JWKSURI)
		r.checkHTTPS(at+".kubernetes.server", t.Kubernetes.Server)
		for n, alg := range t.Algorithms {
			if slices.Contains(t.Algorithms[:n], alg) {
				r.fault(fmt.Sprintf("%s.algorithms[%d]", at, n), "duplicate", "", "is listed twice")
			}
		}
		if t.Audience != "" && t.Audience == t.Issuer {
			r.fault(at+".audience", "value", "", "must not be the issuer: tokens for it go to the issuer's own services, and "+
				"anyone who gets one there could act as an app here")
		}
	}
}

func (r *reader) checkTrustedName(at string, cfg *Config, i int) {
	issuer := cfg.TrustedIssuers[i].Issuer
	wrong := oauth.CheckTrustedIssuer(issuer)
	first := slices.IndexFunc(cfg.TrustedIssuers[:i], func(other TrustedIssuer) bool { return other.Issuer == issuer })
	switch {
	case wrong != "":
		r.fault(at, "value", "", "%s", wrong)
	case first >= 0:
		r.fault(at, "duplicate", "", "is the same as trustedIssuers[%d].issuer", first)
	case strings.TrimRight(issuer, "/") == strings.TrimRight(cfg.Issuer, "/"):
		r.fault(at, "value", "",
			"must not be this server itself: anyone with a token from here could act as whoever it is about")
	}
}

// checkHTTPS is for an address at which something is fetched.
func (r *reader) checkHTTPS(at, address string) {
	if address == "" {
		return
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		r.fault(at, "url", "", "must be an https URL without user name and fragment")
	}
}

// loadTrustedIssuers tells the provider whom to trust. What is in files is read again as the provider needs it.
func (r *reader) loadTrustedIssuers(s *Settings) {
	for i, t := range s.TrustedIssuers {
		at := fmt.Sprintf("trustedIssuers[%d]", i)
		issuer := workload.Issuer{Name: t.Issuer, JWKSURI: t.JWKSURI, JWKSFile: t.JWKSFile,
			Kubernetes: t.Kubernetes.api(), Audience: t.Audience}
		for _, alg := range t.Algorithms {
			issuer.Algorithms = append(issuer.Algorithms, string(alg))
		}
		if t.JWKSFile != "" {
			r.checkNamed(at+".jwksFile", t.JWKSFile, checkKeySet)
		}
		if k := issuer.Kubernetes; k != nil {
			if k.CAFile != "" {
				named(r, at+".kubernetes.caFile", k.CAFile, readAuthorities)
			}
			if k.TokenFile != "" {
				r.warnOpen(at+".kubernetes.tokenFile", t.Kubernetes.TokenFile)
				named(r, at+".kubernetes.tokenFile", k.TokenFile, readSecret)
			}
		}
		s.Provider.TrustedIssuers = append(s.Provider.TrustedIssuers, issuer)
	}
}

// checkKeySet is for a file with the public keys of an issuer.
func checkKeySet(file string) error {
	text, err := readFile(file)
	if err != nil {
		return err
	}
	if strings.Contains(string(text), "PRIVATE KEY") {
		return errors.New("which holds a private key: name the public keys, as a JWK Set")
	}
	keys, err := oauth.ParseIssuerKeys(text)
	switch {
	case err != nil:
		return fmt.Errorf("which is %w", err)
	case len(keys) == 0:
		return errors.New("which has no public key that verifies signatures of tokens")
	}
	return nil
}
