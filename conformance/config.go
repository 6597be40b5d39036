package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Config describes a provider, and what the suite may use there. It is read from a YAML file, whose keys are those of
// the tags.
type Config struct {
	// Issuer is the provider's identifier, letter by letter; discovery is below it.
	Issuer string `yaml:"issuer"`
	// CAFile holds the authorities that vouch for the provider (PEM); left out, those of the system.
	CAFile string `yaml:"caFile"`
	// ConnectTo dials another host:port in place of one, as curl --connect-to does.
	ConnectTo map[string]string `yaml:"connectTo"`

	// Plans are the beginnings of the names of those that are run, as oidcc-basic; left out, all are.
	Plans []string `yaml:"plans"`

	// Listen is where the relying party is served for the provider's own calls, with TLSCert and TLSKey (PEM) by https.
	// BaseURL is how the provider reaches it: it has no path. Without them the modules that need it are skipped.
	Listen  string `yaml:"listen"`
	BaseURL string `yaml:"baseUrl"`
	TLSCert string `yaml:"tlsCert"`
	TLSKey  string `yaml:"tlsKey"`

	// Clients that are registered. Client is used where no other is said; Client2 is a second one of the same kind; of the
	// others those that are left out are Client.
	Clients struct {
		Client       Client  `yaml:"client"`
		Client2      Client  `yaml:"client2"`
		SecretPost   Client  `yaml:"clientSecretPost"`
		Backchannel  *Client `yaml:"backchannel"`
		Frontchannel *Client `yaml:"frontchannel"`
	} `yaml:"clients"`
	// Registration is what dynamic registration needs, where the provider offers it.
	Registration struct {
		InitialAccessToken string `yaml:"initialAccessToken"`
	} `yaml:"registration"`

	// Pages says how the provider's pages are used, the first step that fits a page counts.
	Pages []Step `yaml:"pages"`
	// LoginHint and UILocales are sent by the modules of those names. ACRValues are asked for where metadata names none.
	LoginHint string `yaml:"loginHint"`
	UILocales string `yaml:"uiLocales"`
	ACRValues string `yaml:"acrValues"`
	// RotateKeys is a command that makes the provider use a new signing key.
	RotateKeys []string `yaml:"rotateKeys"`

	// CodeReuse is how long oidcc-codereuse-30seconds waits, JWKSRefresh how long the provider is given before it must
	// know new keys of a client, Backchannel how long a logout token may take.
	CodeReuse   time.Duration `yaml:"codeReuse"`
	JWKSRefresh time.Duration `yaml:"jwksRefresh"`
	Backchannel time.Duration `yaml:"backchannel"`
	// Timeout bounds each request, Limit each module.
	Timeout time.Duration `yaml:"timeout"`
	Limit   time.Duration `yaml:"limit"`
	// Parallel is how many modules are at work at once.
	Parallel int `yaml:"parallel"`

	// Expected are results other than PASSED and REVIEW that are as they should be. Strict refuses WARNING and SKIPPED
	// unless they are expected.
	Expected []Expectation `yaml:"expected"`
	Strict   bool          `yaml:"strict"`
}

// Client is a registered client.
type Client struct {
	ID          string `yaml:"clientId"`
	Secret      string `yaml:"clientSecret"`
	RedirectURI string `yaml:"redirectUri"`
	// PostLogoutRedirectURI and what the provider calls at logout, where they are registered.
	PostLogoutRedirectURI string `yaml:"postLogoutRedirectUri"`
	BackchannelLogoutURI  string `yaml:"backchannelLogoutUri"`
	FrontchannelLogoutURI string `yaml:"frontchannelLogoutUri"`
}

// Step is how one of the provider's pages is used: a page with a form that has the field When, or the button When,
// which is written as decision=allow, is filled in and sent.
type Step struct {
	When string            `yaml:"when"`
	Fill map[string]string `yaml:"fill"`
	// Press is the name and value of the button; by default the one of When, or else the first one.
	Press string `yaml:"press"`
	// SignIn marks the page on which the user proves who they are.
	SignIn bool `yaml:"signIn"`
}

// Expectation is a result that is as it should be.
type Expectation struct {
	// Plan may be left out, or end with *.
	Plan   string `yaml:"plan"`
	Module string `yaml:"module"`
	Result Result `yaml:"result"`
	Why    string `yaml:"why"`
	// Findings are what is found, or parts of it. Left out, anything that leads to the result is expected.
	Findings []string `yaml:"findings"`
}

func (e Expectation) fits(plan, module string) bool {
	prefix, open := strings.CutSuffix(e.Plan, "*")
	return e.Module == module && (e.Plan == "" || e.Plan == plan || open && strings.HasPrefix(plan, prefix))
}

// unexplained is the first finding of a module that is expected to end as it did, but not because of that.
func (e Expectation) unexplained(m ModuleReport) string {
	if len(e.Findings) == 0 || m.Result != e.Result {
		return ""
	}
	for _, found := range m.findings() {
		if !slices.ContainsFunc(e.Findings, func(part string) bool { return strings.Contains(found, part) }) {
			return found
		}
	}
	return ""
}

// ReadConfig reads a file, strictly.
func ReadConfig(file string) (Config, error) {
	var cfg Config
	text, err := os.ReadFile(file)
	if err != nil {
		return cfg, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&cfg); err != nil {
		return cfg, fmt.Errorf("%s: %w", file, err)
	}
	return cfg, nil
}

// complete fills in defaults and says everything that is wrong.
func (c *Config) complete() error {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&c.CodeReuse, 30*time.Second)
	set(&c.JWKSRefresh, time.Minute)
	set(&c.Backchannel, 10*time.Second)
	set(&c.Timeout, 30*time.Second)
	set(&c.Limit, 5*time.Minute)
	if c.Parallel == 0 {
		c.Parallel = 2 * runtime.GOMAXPROCS(0)
	}
	if c.UILocales == "" {
		c.UILocales = "se"
	}
	var wrong []error
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" {
		wrong = append(wrong, fmt.Errorf("issuer %q is no URL", c.Issuer))
	} else if c.LoginHint == "" {
		c.LoginHint = "buffy@" + u.Hostname()
	}
	for name, client := range map[string]Client{"client": c.Clients.Client, "client2": c.Clients.Client2,
		"clientSecretPost": c.Clients.SecretPost} {
		if client.ID == "" || client.RedirectURI == "" {
			wrong = append(wrong, fmt.Errorf("clients.%s needs clientId and redirectUri", name))
		}
	}
	if len(c.Pages) == 0 {
		wrong = append(wrong, errors.New("pages is empty: no user can sign in"))
	}
	for i, e := range c.Expected {
		if e.Module == "" || e.Result == "" || e.Why == "" {
			wrong = append(wrong, fmt.Errorf("expected[%d] needs module, result and why", i))
		} else if _, _, known := Find("", e.Module); !known {
			wrong = append(wrong, fmt.Errorf("expected[%d]: %s is a module of no plan", i, e.Module))
		}
	}
	for _, prefix := range c.Plans {
		if !slices.ContainsFunc(Plans(), func(p Plan) bool { return strings.HasPrefix(p.Name, prefix) }) {
			wrong = append(wrong, fmt.Errorf("no plan begins with %q", prefix))
		}
	}
	return errors.Join(wrong...)
}
