package migrate

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/warifu/warifu/manifests"
	"github.com/warifu/warifu/server/connector"
	"github.com/warifu/warifu/server/oauth"
)

// app is a client of Dex that becomes an app.
type app struct {
	*tree
	from *section
	id   string // of the client
	name string // metadata.name
	// secret is what the client has, in a file of that name; where it refers to a variable, variable says so.
	secret, variable string
	public           bool
	peers            []*item
}

// oob is the redirect URI of apps that have the code shown to their users.
const oob = "urn:ietf:wg:oauth:2.0:oob"

// scopes are those that Dex gives to whoever asks.
var scopes = []string{oauth.ScopeOpenID, oauth.ScopeProfile, oauth.ScopeEmail, oauth.ScopeGroups,
	oauth.ScopeOfflineAccess}

func (m *migration) takeClients(root *section) {
	for _, s := range root.sections("staticClients") {
		if a := m.client(s); a != nil {
			m.apps = append(m.apps, a)
		}
		s.done()
	}
	if m.source.argo != nil {
		m.argoClients()
	}
	for _, a := range m.apps { // now that all names are known
		m.takePeers(a)
	}
}

// clientID is the id of a client, wherever it is.
func (m *migration) clientID(s *section) (string, *item) {
	id, env := s.text("id"), s.text("idEnv")
	switch {
	case id != nil && env != nil:
		m.fault(env, "pair", "", "and id exclude each other")
	case id != nil:
		return id.String(), id
	case env == nil:
		m.fault(s.itself(), "required", "", "has no id")
	default:
		for _, entry := range m.Environ {
			if value, ok := strings.CutPrefix(entry, env.String()+"="); ok && value != "" {
				m.list(env, "is %q in this environment, and is written down: an id is no secret", value)
				return value, env
			}
		}
		m.left(s.itself(), "%s, which holds its id, is not set: set it and migrate again", env)
	}
	return "", nil
}

// client makes an app of a client; nil if it cannot be one.
func (m *migration) client(s *section) *app {
	id, from := m.clientID(s)
	a := &app{tree: newTree(), from: s, id: id}
	a.public, _ = s.flag("public", false)
	name := s.text("name")
	if name == nil {
		m.fault(s.itself(), "required", "", "has no name")
	}
	m.takeSecret(a)
	redirects, device := m.redirects(a)
	a.peers = s.texts("trustedPeers")
	allowed := s.texts("allowedConnectors")
	logout, backchannel := s.texts("postLogoutRedirectURIs"), s.text("backchannelLogoutURI")
	logo := s.text("logoURL")
	m.leaveOfClient(s)
	demand, because := m.demand(s)
	if from == nil {
		return nil
	}
	for _, other := range m.apps {
		if other.id == id {
			m.fault(from, "duplicate", "", "is the id of another client as well")
			return nil
		}
	}
	grants := m.grants(a, len(redirects.Content) > 0, device)
	if len(grants) == 0 {
		m.left(s.itself(), "no redirect URI is left of it, so it could do nothing")
		return nil
	}
	connectors, ok := m.allowed(s, allowed)
	if !ok {
		return nil
	}
	a.name = m.appName(id)
	a.head()
	oauthNode := a.oauth()
	a.set(oauthNode, "clientName", text(name.String()), name)
	if oauth.ValidClientID(id) {
		a.set(oauthNode, "clientId", text(id), from)
	} else {
		m.list(from, "cannot be the id of a client here (letters, digits and . _ ~ @ -): it gets a new one, which the "+
			"app has "+
			"to be told (warifu credentials %s)", a.name)
	}
	if a.public {
		a.set(oauthNode, "public", truth(true), nil)
	}
	if len(redirects.Content) > 0 {
		a.set(oauthNode, "redirectUris", redirects, nil)
	}
	if !slices.Equal(grants, oauth.UsualGrantTypes()) {
		list := words(grants...)
		list.Style = 0
		a.set(oauthNode, "grantTypes", list, nil)
	}
	a.set(oauthNode, "scopes", words(scopes...), nil)
	if len(logout) > 0 {
		a.set(oauthNode, "postLogoutRedirectUris", a.list(logout), nil)
	}
	if backchannel != nil {
		a.set(oauthNode, "backchannelLogoutUri", text(backchannel.String()), backchannel)
	}
	m.tokens(a)
	if connectors != nil || demand != "" {
		access := mapping()
		if connectors != nil {
			a.set(access, "connectors", connectors, nil)
		}
		if demand != "" {
			a.set(access, "mfa", text(demand), because)
		}
		a.set(oauthNode, "access", access, nil)
	}
	if logo != nil {
		metadata := mapping()
		a.set(metadata, "logoUri", text(logo.String()), logo)
		a.set(oauthNode, "metadata", metadata, nil)
	}
	return a
}

// head writes what each manifest begins with.
func (a *app) head() {
	a.put("apiVersion", text(manifests.APIVersion), nil)
	a.put("kind", text(manifests.Kind), nil)
	a.put("metadata.name", text(a.name), nil)
	a.put("spec.version", text("1.0.0"), nil)
	a.put("spec.oauth", mapping(), nil)
}

func (a *app) oauth() *yaml.Node { return field(field(a.root, "spec"), "oauth") }

// tokens says what holds for all clients alike.
func (m *migration) tokens(a *app) {
	if m.idTokenAlg != "" {
		a.set(a.oauth(), "idTokenSignedResponseAlg", text(m.idTokenAlg), nil)
	}
	if m.consentSkipped != nil {
		a.set(a.oauth(), "consent", text(oauth.ConsentSkip), m.consentSkipped)
	}
}

// leaveOfClient lists what there is nothing like here.
func (m *migration) leaveOfClient(s *section) {
	if i := s.text("refreshTokenLifetime"); i.String() == "session" {
		m.left(i, "a sign-out ends the refresh tokens of the browser's sign-in only for apps that did not ask for "+
			"offline_access: "+
			"have the app not ask for it")
	}
	s.left("ssoSharedWith", "whoever is signed in is signed in for all apps; an app can ask anew with "+
		"prompt=login, or by "+
		"spec.oauth.defaultMaxAge")
	s.left("clientCredentialsClaims", "a token that an app gets for itself says nothing of people")
}

// takeSecret keeps the secret of a client for `warifu credentials set`.
func (m *migration) takeSecret(a *app) {
	secret, env := a.from.text("secret"), a.from.text("secretEnv")
	switch {
	case secret != nil && env != nil:
		m.fault(env, "pair", "", "and secret exclude each other")
	case a.public && secret != nil:
		m.left(secret, "a public client has no secret here, and uses PKCE")
	case a.public && env != nil:
		m.left(env, "a public client has no secret here, and uses PKCE")
	case a.public:
	case secret != nil:
		if err := oauth.CheckSecret(secret.String(), true); err != nil {
			m.left(secret, "it %s. The app gets a new one (warifu credentials)", err)
			return
		}
		a.secret = secret.String()
	case env != nil:
		a.variable = env.String()
	default:
		m.fault(a.from.itself(), "required", "", "has no secret, and is not public")
	}
}

// redirects are the redirect URIs that can be carried, and whether the client uses the device grant.
func (m *migration) redirects(a *app) (*yaml.Node, bool) {
	const deviceCallback = "/device/callback"
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	device := false
	items := a.from.texts("redirectURIs")
	for _, i := range items {
		uri := i.String()
		issuer, _ := url.Parse(m.issuer)
		switch {
		case uri == deviceCallback || issuer != nil && uri == issuer.Path+deviceCallback:
			device = true // where Dex's own device flow comes back to
			continue
		case uri == oob:
			m.left(i, "an app no longer has the code shown to its user (RFC 8252 section 8.10): it comes back to "+
				"http://127.0.0.1, "+
				"or uses the device grant")
			continue
		case strings.HasPrefix(uri, "/") && issuer != nil:
			if absolute, err := issuer.Parse(uri); err == nil && oauth.CheckRedirectURI(absolute.String()) == nil {
				list.Content = append(list.Content, a.value(text(absolute.String()), i))
				m.list(i, "is %s from now on: a redirect URI is a whole address here, and the app has to send it so", absolute)
				continue
			}
		}
		if _, private := oauth.PrivateScheme(uri); private {
			if err := oauth.CheckPrivateURI(uri); err != nil {
				m.left(i, "%s", reasonOf(err))
				continue
			}
		} else if err := oauth.CheckRedirectURI(uri); err != nil {
			m.left(i, "%s", reasonOf(err))
			continue
		}
		list.Content = append(list.Content, a.value(text(uri), i))
	}
	if a.public && len(items) == 0 { // as Dex takes them from such a client
		for _, host := range oauth.LoopbackHosts() {
			list.Content = append(list.Content, text("http://"+host+":*"))
		}
		device = true
		m.list(a.from.itself(), "is public and lists no redirectURIs, so that it could come back to any port of the "+
			"user's own "+
			"machine: that is written down. It can no longer have the code shown to its user (%s)", oob)
	}
	return list, device
}

// value is a node of the tree that comes from somewhere.
func (t *tree) value(n *yaml.Node, from *item) *yaml.Node {
	t.from[n] = from
	return n
}

// reasonOf is why a redirect URI is refused.
func reasonOf(err error) string {
	return strings.TrimPrefix(err.Error(), "redirect URI ")
}

// grants are the grant types of a client.
func (m *migration) grants(a *app, redirects, device bool) []string {
	var grants []string
	device = device && slices.Contains(m.clientGrants, oauth.GrantDeviceCode)
	if redirects {
		grants = append(grants, oauth.GrantAuthorizationCode)
	}
	if redirects || device {
		grants = append(grants, oauth.GrantRefreshToken)
	}
	if device {
		grants = append(grants, oauth.GrantDeviceCode)
	}
	if !a.public && slices.Contains(m.clientGrants, oauth.GrantClientCredentials) {
		grants = append(grants, oauth.GrantClientCredentials)
	}
	return grants
}

// allowed are the connectors that a client is for; false if it was for none that comes along, because without the list
// it would be for everybody.
func (m *migration) allowed(s *section, written []*item) (*yaml.Node, bool) {
	if len(written) == 0 {
		return nil, true
	}
	known := []string{}
	if field(m.config.root, "enablePasswordDB") != nil {
		known = append(known, connector.StaticName)
	}
	if list := field(m.config.root, "connectors"); list != nil {
		for _, c := range list.Content {
			known = append(known, field(c, "id").Value)
		}
	}
	node := words()
	for _, i := range written {
		if !slices.Contains(known, i.String()) {
			m.left(i, "there is no connector %q here", i.String())
			continue
		}
		node.Content = append(node.Content, text(i.String()))
	}
	if len(node.Content) == 0 {
		m.left(s.itself(), "none of the connectors that it is for comes along, and without them it would be for everybody")
		return nil, false
	}
	return node, true
}

// takePeers takes the clients that may ask for tokens for this one. Here they are apps, by name.
func (m *migration) takePeers(a *app) {
	node := words()
	for _, i := range a.peers {
		peer := slices.IndexFunc(m.apps, func(other *app) bool { return other.id == i.String() })
		if peer < 0 {
			m.left(i, "no client in staticClients has this id: name its app in trustedPeers of %s when there is one", a.name)
			continue
		}
		node.Content = append(node.Content, text(m.apps[peer].name))
	}
	if len(node.Content) > 0 {
		a.set(a.oauth(), "trustedPeers", node, nil)
	}
}

// appName makes a name of a client id that no other app has.
func (m *migration) appName(id string) string {
	const longest = 59 // with room for a number
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, strings.ToLower(id))
	for strings.Contains(name, "--") {
		name = strings.ReplaceAll(name, "--", "-")
	}
	if name = strings.Trim(name, "-"); len(name) > longest {
		name = strings.TrimRight(name[:longest], "-")
	}
	if name == "" {
		name = "app"
	}
	unique := name
	for n := 2; slices.ContainsFunc(m.apps, func(a *app) bool { return a.name == unique }); n++ {
		unique = name + "-" + strconv.Itoa(n)
	}
	return unique
}

// argoClients are those that Argo CD adds to the configuration of its Dex.
func (m *migration) argoClients() {
	address := strings.TrimSuffix(m.issuer, "/api/dex")
	if written := m.source.argo.Field("data").Field("url"); written != nil {
		address = strings.TrimSuffix(written.Text, "/")
	}
	for _, c := range []struct {
		id, name  string
		public    bool
		redirects []string
	}{
		{"argo-cd", "Argo CD", false, []string{address + "/auth/callback"}},
		{"argo-cd-cli", "Argo CD CLI", true, []string{"http://localhost", "http://localhost:8085/auth/callback"}},
	} {
		if slices.ContainsFunc(m.apps, func(a *app) bool { return a.id == c.id }) {
			continue
		}
		a := &app{tree: newTree(), id: c.id, name: m.appName(c.id), public: c.public}
		a.head()
		n := a.oauth()
		a.set(n, "clientName", text(c.name), nil)
		a.set(n, "clientId", text(c.id), nil)
		if c.public {
			a.set(n, "public", truth(true), nil)
		}
		list := words(c.redirects...)
		list.Style = 0
		a.set(n, "redirectUris", list, nil)
		a.set(n, "scopes", words(scopes...), nil)
		m.tokens(a)
		m.apps = append(m.apps, a)
	}
	m.note("Argo CD adds the clients argo-cd and argo-cd-cli to the configuration of its Dex, so they are written " +
		"here. It " +
		"makes the secret of argo-cd by itself: put that of warifu credentials argo-cd into oidc.config of argocd-cm, with " +
		"this issuer, in place of dex.config.")
	if m.Issuer == "" {
		m.note("Argo CD passes what is below /api/dex to its own Dex while dex.config is there: have the ingress pass " +
			"it to this " +
			"server, or give that another address (--issuer).")
	}
}
