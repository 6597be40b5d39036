package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/manifests/strictyaml"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/connector/dex"
)

// mocks are the connectors with which Dex tests itself.
var mocks = []string{"mockCallback", "mockPassword"}

func (m *migration) takeConnectors(root *section) {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, s := range root.sections("connectors") {
		if n := m.connector(s); n != nil {
			list.Content = append(list.Content, n)
		}
	}
	if len(list.Content) > 0 {
		m.config.put("connectors", list, nil)
	}
}

// connector takes one, with its settings as they are.
func (m *migration) connector(s *section) *yaml.Node {
	t, n := m.config, mapping()
	t.from[n] = s.itself()
	kind := s.text("type")
	for _, key := range []string{"type", "id", "name"} {
		if i := s.text(key); i != nil {
			t.set(n, key, text(i.value.Text), i)
		} else {
			m.fault(s.itself(), "required", "", "has no %s", key)
		}
	}
	s.left("grantTypes", "a connector serves the sign-in page and the device grant; each app says which connectors "+
		"its users "+
		"may come from (spec.oauth.access.connectors)")
	if config := s.section("config"); config != nil {
		settings := m.settings(config)
		if m.source.argo != nil && slices.Contains(argoRedirects, kind.String()) {
			m.setCallback(settings)
		}
		t.set(n, "config", settings, s.item("config"))
	}
	s.done()
	switch {
	case kind == nil:
		return nil
	case slices.Contains(mocks, kind.String()):
		m.left(s.itself(), "%s is what Dex tests itself with", kind)
		return nil
	case !slices.Contains(dex.Types(), kind.String()):
		m.fault(kind, "value", strictyaml.Nearest(kind.String(), dex.Types()), "is %q, which is no type of connector", kind)
		return nil
	case skipsSignatures(n):
		m.left(s.itself(), "with its insecureSkipSignatureValidation anybody could pose as anybody, "+
			"so it is not supported here: give the provider's certificate in ca or caData")
		return nil
	case s.text("id").String() == connector.StaticName:
		m.left(s.itself(), "the id %s is that of staticPasswords: give it another one, by which its users get another sub",
			connector.StaticName)
		return nil
	}
	if permission := groupPermissions[kind.String()]; permission != "" {
		m.list(s.itself(), "is asked for groups at each sign-in, at Dex only for apps that ask for them. That takes the "+
			"permission %s: set skipGroups: true if it is not granted and no groups are needed", permission)
	}
	return n
}

// groupPermissions are what connectors need to read groups and would not ask for otherwise.
var groupPermissions = map[string]string{"microsoft": "directory.read.all", "gitlab": "openid", "github": "read:org"}

// skipsSignatures reports whether a connector believes whatever comes.
func skipsSignatures(n *yaml.Node) bool {
	config := field(n, "config")
	for i := 0; config != nil && config.Kind == yaml.MappingNode && i < len(config.Content); i += 2 {
		if strings.EqualFold(config.Content[i].Value, "insecureSkipSignatureValidation") {
			return config.Content[i+1].Value == "true"
		}
	}
	return false
}

// argoRedirects are the connectors to which Argo CD says where to come back to.
var argoRedirects = []string{"oidc", "saml", "microsoft", "linkedin", "gitlab", "github", "bitbucket-cloud",
	"openshift", "gitea", "google", "oauth"}

// setCallback does so in its place: the provider has it registered.
func (m *migration) setCallback(settings *yaml.Node) {
	for i := 0; i < len(settings.Content); i += 2 {
		if strings.EqualFold(settings.Content[i].Value, "redirectURI") {
			settings.Content = slices.Delete(settings.Content, i, i+2)
			break
		}
	}
	m.config.set(settings, "redirectURI", text(m.issuer+"/callback"), nil)
}

// settings are those of a connector: as they are, but for references to secrets of Argo CD and for an issuer that has
// changed.
func (m *migration) settings(s *section) *yaml.Node {
	n := mapping()
	for _, f := range s.value.Fields {
		i := &item{strictyaml.Join(s.path, f.Key), m.source.at(f.Position), f.Value}
		value := m.setting(i)
		m.config.set(n, f.Key, value, i)
		if old := f.Value.Text; m.old != "" && strings.EqualFold(f.Key, "redirectURI") && strings.HasPrefix(old, m.old) {
			value.SetString(m.issuer + strings.TrimPrefix(old, m.old))
			m.list(i, "is %s from now on: register it at the provider", value.Value)
		}
	}
	return n
}

func (m *migration) setting(i *item) *yaml.Node {
	switch i.value.Kind {
	case strictyaml.Mapping:
		n := mapping()
		for _, f := range i.value.Fields {
			below := &item{strictyaml.Join(i.path, f.Key), m.source.at(f.Position), f.Value}
			m.config.set(n, f.Key, m.setting(below), below)
		}
		return n
	case strictyaml.List:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for nth, v := range i.value.Items {
			below := &item{fmt.Sprintf("%s[%d]", i.path, nth), m.source.at(v.Position), v}
			value := m.setting(below)
			m.config.from[value] = below
			n.Content = append(n.Content, value)
		}
		return n
	}
	if !i.value.IsText() {
		return verbatim(i.value)
	}
	written := i.value.Text
	if m.source.argo != nil && strings.HasPrefix(written, "$") {
		return text(m.argoSecret(i))
	}
	if !m.expands() {
		return text(strings.ReplaceAll(written, "$", "$$"))
	}
	if losesDollars(written) {
		m.list(i, "has a dollar sign that begins no variable: Dex drops it and what follows, here it is plain text")
	}
	for _, name := range references(written) {
		if !slices.Contains(m.variables, name) {
			m.variables = append(m.variables, name)
		}
	}
	return text(written)
}

// expands is whether Dex puts variables in their places (DEX_EXPAND_ENV).
func (m *migration) expands() bool {
	for _, entry := range m.Environ {
		if value, is := strings.CutPrefix(entry, "DEX_EXPAND_ENV="); is {
			yes, err := strconv.ParseBool(value)
			return yes || err != nil
		}
	}
	return true
}

// argoSecret makes a variable of what Argo CD takes from a Secret of Kubernetes: $key of argocd-secret, or $secret:key.
func (m *migration) argoSecret(i *item) string {
	reference := strings.TrimPrefix(i.value.Text, "$")
	secret, key, other := strings.Cut(reference, ":")
	if !other {
		secret, key = "argocd-secret", reference
	}
	variable := strings.Map(func(c rune) rune {
		if c = []rune(strings.ToUpper(string(c)))[0]; c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, reference)
	namespace := ""
	if ns := m.source.argo.Field("metadata").Field("namespace"); ns != nil {
		namespace = " --namespace " + quoted(ns.Text)
	}
	m.variables, m.known = append(m.variables, variable), append(m.known, variable)
	m.list(i, "is the variable %s from now on, which has what Argo CD took from the Secret %s", variable, secret)
	m.before = append(m.before, Step{"take " + i.path + " from the Secret, as Argo CD did",
		fmt.Sprintf("export %s=\"$(kubectl%s get secret %s --output %s | base64 --decode)\"", variable, namespace,
			quoted(secret), quoted("jsonpath={.data."+strings.ReplaceAll(key, ".", `\.`)+"}"))})
	return "${" + variable + "}"
}
