package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/warifu/warifu/plugins"
	"github.com/warifu/warifu/server/oauth"
)

const (
	defaultCredentials    = "/var/run/secrets/kubernetes.io/serviceaccount"
	defaultServer         = "https://kubernetes.default.svc"
	defaultRolloutTimeout = 10 * time.Minute
)

// settings are the config as written; README.md explains them.
type settings struct {
	Namespace string `json:"namespace"`
	// One of the two ways to a cluster: a kubeconfig, or the service account of the pod that this runs in. The latter is
	// found by these defaults and not by the environment, which plugins do not inherit.
	Kubeconfig  string `json:"kubeconfig"`
	Context     string `json:"context"`
	Server      string `json:"server"`
	Credentials string `json:"credentials"`

	Workloads      []assignment `json:"workloads"`
	RolloutTimeout duration     `json:"rolloutTimeout"`
}

// assignment names the workload of targets that have no labels. App is a pattern; what is empty fits everything.
type assignment struct {
	App      string `json:"app"`
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Workload string `json:"workload"` // Deployment/web
}

// duration is a time.Duration written as "10m".
type duration time.Duration

// UnmarshalJSON reads what [time.ParseDuration] does, and wants more than nothing.
func (d *duration) UnmarshalJSON(text []byte) error {
	var written string
	if err := json.Unmarshal(text, &written); err != nil {
		return fmt.Errorf("a duration is written as \"10m\": %w", err)
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
	s := settings{RolloutTimeout: duration(defaultRolloutTimeout)}
	if len(config) == 0 {
		config = json.RawMessage("{}")
	}
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("the config of the runtime kubernetes is {\"namespace\": \"apps\", \"kubeconfig\": "+
			"\"/path\"}: %w",
			err)
	}
	var errs []error
	if s.Kubeconfig != "" && (s.Server != "" || s.Credentials != "") {
		errs = append(errs, errors.New("server and credentials are those of a pod's service account; a "+
			"kubeconfig has its own"))
	}
	if s.Kubeconfig == "" && s.Context != "" {
		errs = append(errs, errors.New("context is one of a kubeconfig, and there is none"))
	}
	for i, a := range s.Workloads {
		if err := a.check(); err != nil {
			errs = append(errs, fmt.Errorf("workloads[%d]: %w", i, err))
		}
	}
	return s, errors.Join(errs...)
}

func (a assignment) check() error {
	if _, err := path.Match(a.App, ""); err != nil {
		return fmt.Errorf("app %q is not a pattern", a.App)
	}
	if a.Kind != "" || a.Name != "" {
		if err := (plugins.Target{Kind: orElse(a.Kind, plugins.TargetContainer), Name: "x"}).Check(); err != nil {
			return err
		}
	}
	kind, name, _ := strings.Cut(a.Workload, "/")
	if kindOf(kind) == nil || name == "" {
		return fmt.Errorf("workload %q is not Deployment/name, StatefulSet/name or DaemonSet/name", a.Workload)
	}
	return nil
}

// assigned gives the workload that the config names for a target, as kind/name.
func (s settings) assigned(app string, t plugins.Target) (string, bool) {
	for _, a := range s.Workloads {
		fits := a.App == ""
		if !fits {
			fits, _ = path.Match(a.App, app) // checked
		}
		if fits && (a.Kind == "" || a.Kind == t.Kind) && (a.Name == "" || a.Name == t.Name) {
			return a.Workload, true
		}
	}
	return "", false
}

// connection gives how the cluster is reached, and the namespace. It asks nobody.
func (s settings) connection() (*rest.Config, string, error) {
	if s.Kubeconfig == "" {
		return s.inCluster()
	}
	if !filepath.IsAbs(s.Kubeconfig) {
		return nil, "", fmt.Errorf("kubeconfig %q is not an absolute path", s.Kubeconfig)
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: s.Kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: s.Context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig %s: %w", s.Kubeconfig, err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig %s: %w", s.Kubeconfig, err)
	}
	if config.Insecure && !onThisMachine(config.Host) {
		return nil, "", fmt.Errorf("kubeconfig %s does not check the cluster's certificate: whoever is on the way "+
			"could read every secret; give it certificate-authority instead of insecure-skip-tls-verify", s.Kubeconfig)
	}
	return config, orElse(s.Namespace, namespace), encrypted(config.Host)
}

func (s settings) inCluster() (*rest.Config, string, error) {
	dir := orElse(s.Credentials, defaultCredentials)
	token := filepath.Join(dir, "token")
	if _, err := os.Stat(token); err != nil {
		return nil, "", fmt.Errorf("there is no service account of a pod, %w: set kubeconfig, or run in a pod "+
			"that has one", err)
	}
	namespace := s.Namespace
	if namespace == "" {
		text, err := os.ReadFile(filepath.Join(dir, "namespace"))
		if err != nil {
			return nil, "", fmt.Errorf("set namespace: %w", err)
		}
		namespace = strings.TrimSpace(string(text))
	}
	authority := filepath.Join(dir, "ca.crt")
	text, err := os.ReadFile(authority)
	if err != nil {
		return nil, "", fmt.Errorf("read the certificate of the cluster's authority: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return nil, "", fmt.Errorf("%s has no certificate in PEM", authority)
	}
	server := orElse(s.Server, defaultServer)
	return &rest.Config{
		Host: server, BearerTokenFile: token, // read again when it changes
		TLSClientConfig: rest.TLSClientConfig{CAFile: authority},
	}, namespace, encrypted(server)
}

// encrypted wants TLS, or a proxy on this machine: whoever listens on the way would read every secret.
func encrypted(server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return fmt.Errorf("server %q is not a URL", server)
	}
	if u.Scheme == "https" || onThisMachine(server) {
		return nil
	}
	return fmt.Errorf("server %q is neither https nor on this machine", server)
}

func onThisMachine(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	return oauth.IsThisMachine(u.Hostname())
}

func orElse(text, otherwise string) string {
	if text != "" {
		return text
	}
	return otherwise
}
