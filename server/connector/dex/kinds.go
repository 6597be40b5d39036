package dex

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	dex "github.com/dexidp/dex/connector"
	"github.com/dexidp/dex/connector/atlassiancrowd"
	"github.com/dexidp/dex/connector/bitbucketcloud"
	"github.com/dexidp/dex/connector/gitea"
	"github.com/dexidp/dex/connector/github"
	"github.com/dexidp/dex/connector/gitlab"
	"github.com/dexidp/dex/connector/google"
	"github.com/dexidp/dex/connector/keystone"
	"github.com/dexidp/dex/connector/ldap"
	"github.com/dexidp/dex/connector/linkedin"
	"github.com/dexidp/dex/connector/microsoft"
	"github.com/dexidp/dex/connector/oauth"
	"github.com/dexidp/dex/connector/openshift"
	"github.com/dexidp/dex/pkg/httpclient"

	"github.com/warifu/warifu/server/connector"
)

const googleIssuer = "https://accounts.google.com"

var crowdKind = passwordKind[*atlassiancrowd.Config]{
	check: func(c *atlassiancrowd.Config, _ Spec, r *report) {
		if r.required("baseURL", c.BaseURL) {
			r.address("baseURL", c.BaseURL)
		}
		r.required("clientID", c.ClientID)
		r.required("clientSecret", c.ClientSecret)
		r.oneOf("preferredUsernameField", c.PreferredUsernameField, "key", "name", "email")
	},
	prompt: func(c *atlassiancrowd.Config) string { return c.UsernamePrompt },
	unfit:  "&#%+?;", // the name becomes part of an address as it is
	// Crowd tells apart accounts that are not active, or whose password has expired; a stranger is told of neither.
	wrong: func(text string) bool { return strings.HasPrefix(text, "400 ") },
}

var keystoneKind = passwordKind[*keystone.Config]{
	check: func(c *keystone.Config, s Spec, r *report) {
		if r.required("keystoneHost", c.Host) {
			r.address("keystoneHost", c.Host)
		}
		r.required("domain", c.Domain)
		if s.Ask > 0 {
			r.required("keystoneUsername", c.AdminUsername)
			r.required("keystonePassword", c.AdminPassword)
		}
	},
	wrong:  func(text string) bool { return text == "keystone login: error 401" },
	told:   true,
	stands: keystoneStands,
}

var ldapKind = passwordKind[*ldap.Config]{
	check:      func(c *ldap.Config, _ Spec, r *report) { checkLDAP(c, r) },
	open:       func(c *ldap.Config) (dex.Connector, error) { return openDirectory(c) },
	prompt:     func(c *ldap.Config) string { return c.UsernamePrompt },
	negotiates: func(c *ldap.Config) bool { return c.Kerberos != nil && c.Kerberos.Enabled },
}

var bitbucketKind = redirectKind[*bitbucketcloud.Config]{
	check: func(c *bitbucketcloud.Config, r *report) { r.client(c.ClientID, c.ClientSecret) },
}

var giteaKind = redirectKind[*gitea.Config]{
	check: func(c *gitea.Config, r *report) {
		r.client(c.ClientID, c.ClientSecret)
		r.address("baseURL", c.BaseURL)
		for i, org := range c.Orgs {
			r.requiredAt("orgs", i, "name", org.Name)
		}
	},
	noID: "0",
}

var githubKind = redirectKind[*github.Config]{
	check: func(c *github.Config, r *report) {
		r.client(c.ClientID, c.ClientSecret)
		if c.Org != "" && len(c.Orgs) > 0 {
			r.fault("org", "value", "", "cannot be combined with orgs: add it there")
		}
		for i, org := range c.Orgs {
			r.requiredAt("orgs", i, "name", org.Name)
		}
		if strings.Contains(c.HostName, "/") {
			r.fault("hostName", "value", "", "must be the name of a host alone, as in git.example.com")
		}
		if c.RootCA != "" && c.HostName == "" {
			r.fault("rootCA", "value", "", "needs hostName: github.com has a certificate that is known")
		}
		r.authority("rootCA", c.RootCA)
		r.oneOf("teamNameField", c.TeamNameField, "name", "slug", "both")
		if strings.HasSuffix(c.PreferredEmailDomain, "*") {
			r.fault("preferredEmailDomain", "value", "", "must not end with *")
		}
	},
	fit: func(_ *github.Config, q url.Values, ask connector.Ask) {
		hint(q, "login", ask.LoginHint)
		if ask.Fresh || ask.SelectAccount {
			q.Set("prompt", "select_account")
		}
	},
	noID: "0",
}

var gitlabKind = redirectKind[*gitlab.Config]{
	check: func(c *gitlab.Config, r *report) {
		r.client(c.ClientID, c.ClientSecret)
		r.address("baseURL", c.BaseURL)
		r.authority("rootCAData", string(c.RootCAData))
	},
	noID: "0",
}

var googleKind = redirectKind[*google.Config]{
	check: func(c *google.Config, r *report) {
		r.client(c.ClientID, c.ClientSecret)
		//lint:ignore SA1019 files of Dex may still have it
		readsGroups := len(c.DomainToAdminEmail) > 0 || c.AdminEmail != ""
		if c.ServiceAccountFilePath != "" {
			if !readsGroups {
				r.fault("domainToAdminEmail", "required", "", "is required with serviceAccountFilePath: the administrator "+
					"in whose name groups are read, by domain")
			}
			r.serviceAccount("serviceAccountFilePath", c.ServiceAccountFilePath)
		}
		if len(c.Groups) > 0 && !readsGroups {
			r.fault("groups", "value", "",
				"needs domainToAdminEmail: without it no groups are read, and everybody would be let in")
		}
	},
	probe: func(ctx context.Context, _ *google.Config) error {
		return discovered(ctx, &http.Client{Transport: bounded{}}, googleIssuer+"/.well-known/openid-configuration")
	},
	fit: func(_ *google.Config, q url.Values, ask connector.Ask) {
		hint(q, "login_hint", ask.LoginHint)
		if (ask.Fresh || ask.SelectAccount) && q.Get("prompt") != "none" {
			q.Set("prompt", strings.TrimSpace(q.Get("prompt")+" select_account"))
		}
	},
	openID: true,
}

var linkedinKind = redirectKind[*linkedin.Config]{
	check: func(c *linkedin.Config, r *report) { r.client(c.ClientID, c.ClientSecret) },
}

var microsoftKind = redirectKind[*microsoft.Config]{
	check: func(c *microsoft.Config, r *report) {
		r.required("clientID", c.ClientID)
		if c.ClientAssertion == "" {
			r.required("clientSecret", c.ClientSecret)
		} else {
			r.file("clientAssertion", c.ClientAssertion)
		}
		r.oneOf("groupNameFormat", string(c.GroupNameFormat), string(microsoft.GroupID), string(microsoft.GroupName))
		r.oneOf("preferredUsernameField", c.PreferredUsernameField,
			"name", "email", "mailNickname", "onPremisesSamAccountName")
		r.address("apiURL", c.APIURL)
		r.address("graphURL", c.GraphURL)
		switch c.Tenant {
		case "", "common", "consumers", "organizations":
			if len(c.Groups) > 0 {
				r.fault("groups", "value", "",
					"needs tenant to be one tenant: else no groups are read, and everybody would be let in")
			}
		}
	},
	fit: func(_ *microsoft.Config, q url.Values, ask connector.Ask) {
		hint(q, "login_hint", ask.LoginHint)
		switch {
		case q.Get("prompt") != "": // the configuration says it (promptType)
		case ask.Fresh:
			q.Set("prompt", "login")
		case ask.SelectAccount:
			q.Set("prompt", "select_account")
		}
	},
}

var oauthKind = redirectKind[*oauth.Config]{
	check: func(c *oauth.Config, r *report) {
		r.required("clientID", c.ClientID)
		for _, u := range []struct{ path, text string }{
			{"authorizationURL", c.AuthorizationURL}, {"tokenURL", c.TokenURL}, {"userInfoURL", c.UserInfoURL},
		} {
			if r.required(u.path, u.text) {
				r.address(u.path, u.text)
			}
		}
		for i, ca := range c.RootCAs {
			r.authority(index("rootCAs", i), ca)
		}
	},
	open:  openOAuth,
	hosts: func(c *oauth.Config) []string { return hostsOf(c.TokenURL, c.UserInfoURL) },
	once:  true,
}

var openshiftKind = redirectKind[*openshift.Config]{
	check: func(c *openshift.Config, r *report) {
		if r.required("issuer", c.Issuer) {
			r.address("issuer", c.Issuer)
		}
		r.client(c.ClientID, c.ClientSecret)
		r.authority("rootCA", c.RootCA)
	},
	probe: func(ctx context.Context, c *openshift.Config) error {
		var authorities []string
		if c.RootCA != "" {
			authorities = append(authorities, c.RootCA)
		}
		client, err := httpclient.NewHTTPClient(authorities, c.InsecureCA)
		if err != nil {
			return judged(err, opening)
		}
		defer client.CloseIdleConnections()
		return discovered(ctx, client, strings.TrimSuffix(c.Issuer, "/")+"/.well-known/oauth-authorization-server")
	},
	hosts: func(c *openshift.Config) []string { return hostsOf(c.Issuer) },
}

func hint(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func hostsOf(addresses ...string) []string {
	var hosts []string
	for _, address := range addresses {
		if u, err := url.Parse(address); err == nil {
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}
