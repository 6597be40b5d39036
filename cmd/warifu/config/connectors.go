package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/dex"
	"github.com/warifu/warifu/server/oauth"
)

// upstream is a connector of the configuration, with what its files and variables hold: all that it is made of.
type upstream struct {
	Spec   dex.Spec
	Name   string
	Logo   []byte
	Groups []string
}

// make makes a connector. What is wrong with it was found when the configuration was read.
func (s *Settings) make(u upstream, log *slog.Logger) (connector.Connector, []dex.Fault) {
	spec := u.Spec
	spec.Logger = log
	if proxies := s.Web.proxies(); len(proxies) > 0 {
		spec.Trusted = func(remoteAddr string) bool {
			peer, err := netip.ParseAddrPort(remoteAddr)
			among := func(network netip.Prefix) bool { return network.Contains(peer.Addr().Unmap()) }
			return err == nil && slices.ContainsFunc(proxies, among)
		}
	}
	made, faults := dex.New(spec)
	made.ID, made.Name, made.Logo, made.Groups, made.Ask = spec.ID, u.Name, u.Logo, u.Groups, spec.Ask
	return made, faults
}

// Upstreams makes the connectors, except that those of kept, by id, are taken as they are. None of them asks its
// upstream before somebody signs in.
func (s *Settings) Upstreams(log *slog.Logger, kept map[string]connector.Connector) ([]connector.Connector, error) {
	made := make([]connector.Connector, len(s.upstreams))
	for i, u := range s.upstreams {
		if same, is := kept[u.Spec.ID]; is {
			made[i] = same
			continue
		}
		var faults []dex.Fault
		if made[i], faults = s.make(u, log); len(faults) > 0 { // a file that it names has gone since
			return nil, fmt.Errorf("connector %s: config.%s %s", u.Spec.ID, faults[0].Path, faults[0].Message)
		}
	}
	return made, nil
}

// ConnectorIDs are the connectors by which people can sign in.
func (cfg *Config) ConnectorIDs() []string {
	ids := []string{connector.StaticName}
	for _, c := range cfg.Connectors {
		ids = append(ids, c.ID)
	}
	return ids
}

// subjects are how people are called in tokens.
func (cfg *Config) subjects() connector.Subjects {
	if cfg.Subject == SubjectDex {
		return connector.SubjectsDex
	}
	return connector.SubjectsHashed
}

// Bounds of refreshUpstream: an upstream is not to be asked all the time, and what it says is not to come a week late.
const (
	shortestAsk = time.Minute
	longestAsk  = 24 * time.Hour
)

// mostConnectorName is what fits on a button of a phone, in characters.
const mostConnectorName = 60

func (r *reader) checkConnectors(cfg *Config) {
	ids := make(map[string]int)
	for i, c := range cfg.Connectors {
		at := fmt.Sprintf("connectors[%d]", i)
		r.required(at+".type", string(c.Type), "the kind of connector, as in ldap")
		if r.required(at+".id", c.ID, "it is in addresses and in the records of users, and stays for ever") {
			first, twice := ids[c.ID]
			switch {
			case !connector.ValidID(c.ID):
				r.fault(at+".id", "value", "", "must be 1 to 64 letters, digits and -._~, but is %q", c.ID)
			case c.ID == connector.StaticName:
				r.fault(at+".id", "duplicate", "", "is %q, which is the connector of staticPasswords", c.ID)
			case twice:
				r.fault(at+".id", "duplicate", "", "is the same as connectors[%d].id", first)
			default:
				ids[c.ID] = i
			}
		}
		if r.required(at+".name", c.Name, "the sign-in page shows it") {
			r.checkClaimText(at+".name", c.Name, false)
			if n := utf8.RuneCountInString(c.Name); n > mostConnectorName {
				r.fault(at+".name", "value", "", "must be %d characters or less, but has %d", mostConnectorName, n)
			}
		}
		r.checkGroups(at+".groups", c.Groups)
		if d := time.Duration(c.RefreshUpstream); d != 0 && (d < shortestAsk || d > longestAsk) {
			r.fault(at+".refreshUpstream", "value", "", "must be from 1m to 24h, or 0s for never, but is %s", d)
		}
	}
}

// loadConnectors reads what the connectors name, and finds what is wrong with their settings.
func (r *reader) loadConnectors(s *Settings) {
	for i, c := range s.Config.Connectors {
		at := fmt.Sprintf("connectors[%d]", i)
		u := upstream{
			Spec: dex.Spec{
				Type: string(c.Type), ID: c.ID, Ask: time.Duration(c.RefreshUpstream), SkipGroups: c.SkipGroups,
				TrustUpstream: c.TrustUpstream,
			},
			Name: c.Name, Groups: c.Groups,
		}
		if named(r, at+".logoFile", c.LogoFile, readLogo) != nil {
			u.Logo = named(r, at+".logoFile", c.LogoFile, readFile)
		}
		if issuer, err := oauth.ParseIssuer(s.Issuer); err == nil && !r.faulty(at+".id") {
			base := strings.TrimSuffix(issuer.String(), "/")
			u.Spec.Callbacks = []string{base + "/callback/" + c.ID, base + "/callback"}
		}
		u.Spec.Config = r.connectorConfig(at+".config", c.Config)
		r.rememberBelow(at+".config", c.Config)
		if c.Type == "" || r.faulty(at+".type") || r.faultyItself(at+".config") {
			continue // it would not be what was meant
		}
		_, faults := s.make(u, slog.New(slog.DiscardHandler))
		for _, f := range faults {
			path := strings.TrimSuffix(at+".config."+f.Path, ".")
			if f.Path == "redirectURI" && u.Spec.Callbacks == nil {
				continue // the issuer or the id has a fault
			}
			if f.Path != "" && r.faulty(path) {
				continue // that is said: a variable is missing
			}
			r.fault(path, f.Code, f.Suggestion, "%s", f.Message)
		}
		s.upstreams = append(s.upstreams, u)
	}
}

// secretKeys are the settings of connectors that are secrets: each can be in a file, which the same key with File at
// its end names.
var secretKeys = []string{"bindPW", "clientSecret", "keystonePassword"}

// connectorConfig is what stands below config as JSON, with variables and secret files in their places.
func (r *reader) connectorConfig(at string, written map[string]any) json.RawMessage {
	config := make(map[string]any, len(written))
	for _, key := range slices.Sorted(maps.Keys(written)) {
		path := strictyaml.Join(at, key)
		secret := strings.TrimSuffix(key, "File")
		file, isText := written[key].(string)
		switch {
		case secret == key || !slices.Contains(secretKeys, secret):
			config[key] = r.expand(path, written[key])
		case !isText || file == "":
			r.fault(path, "type", "", "must be the name of a file")
		case written[secret] != nil:
			r.fault(path, "pair", "", "and %s exclude each other", secret)
		default:
			r.warnOpen(path, file)
			config[secret] = cmp.Or(named(r, path, file, readSecret), "unreadable, which is said")
		}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(config); err != nil {
		r.fault(at, "type", "", "holds something that JSON cannot express")
	}
	return b.Bytes()
}

// variable is a variable of the environment in a text, or two dollars, which are one. A dollar before anything else is
// itself.
var variable = regexp.MustCompile(`\$(\$|[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\})`)

// expand puts variables of the environment in their places, as Dex does; but one that is not set is a fault.
func (r *reader) expand(path string, value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(value))
		for key, v := range value {
			out[key] = r.expand(strictyaml.Join(path, key), v)
		}
		return out
	case []any:
		out := make([]any, len(value))
		for i, v := range value {
			out[i] = r.expand(fmt.Sprintf("%s[%d]", path, i), v)
		}
		return out
	case string:
		return variable.ReplaceAllStringFunc(value, func(found string) string {
			name := strings.Trim(found[1:], "{}")
			if name == "$" {
				return name
			}
			if set := r.lookup(name); set != "" {
				return set
			}
			r.fault(path, "variable", "", "needs the variable %s of the environment, which is not set "+
				"(write $$ for a dollar sign that does not begin a variable)", name)
			return found // the other settings are checked beside it
		})
	}
	return value
}

// lookup is a variable of the environment.
func (r *reader) lookup(name string) string {
	for _, entry := range slices.Backward(r.environ) {
		if value, is := strings.CutPrefix(entry, name+"="); is {
			return value
		}
	}
	return ""
}
