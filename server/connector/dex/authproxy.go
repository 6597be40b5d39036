package dex

import (
	"context"
	"net/http"
	"net/url"

	"github.com/dexidp/dex/connector/authproxy"

	dex "github.com/dexidp/dex/connector"
	"golang.org/x/net/http/httpguts"

	"github.com/warifu/warifu/server/connector"
)

// proxied believes the headers of a proxy that has found out who somebody is. The proxy stands before the callback of
// this connector; from anybody else such headers would be an invention.
type proxied struct {
	redirect
	trusted func(remoteAddr string) bool
}

func buildAuthproxy(s Spec, config any) (connector.Connector, []Fault) {
	c := config.(*authproxy.Config)
	var r report
	if s.Trusted == nil {
		r.fault("", "value", "",
			"is of a type that believes the headers of a proxy: set web.trustedProxies to the network of the proxy")
	}
	if s.Ask > 0 {
		r.fault("", "value", "", "is of a type that cannot be asked again about its users: leave refreshUpstream out")
	}
	for path, name := range map[string]string{
		"userIDHeader": c.UserIDHeader, "userHeader": c.UserHeader, "userNameHeader": c.UserNameHeader,
		"emailHeader": c.EmailHeader, "groupHeader": c.GroupHeader,
	} {
		if name != "" && !httpguts.ValidHeaderFieldName(name) {
			r.fault(path, "value", "", "must be the name of a header, as in X-Remote-User")
		}
	}
	callback := r.callback("", s)
	if len(r.faults) > 0 {
		return connector.Connector{}, r.faults
	}
	upstream := newUpstream(func(context.Context) (dex.Connector, error) { return reopened(s, c, callback) })
	return connector.Connector{ID: s.ID, Redirect: proxied{
		redirect{upstream: upstream, callback: callback, scopes: scopesOf(s)}, s.Trusted,
	}}, nil
}

// Start is [connector.Redirect.Start]. The browser goes to the callback, where the proxy stops it.
func (p proxied) Start(_ context.Context, ask connector.Ask) (connector.Away, error) {
	return connector.Away{URL: p.callback + "?" + url.Values{"state": {ask.State}}.Encode(), Keep: []byte("{}")}, nil
}

// Finish is [connector.Redirect.Finish].
func (p proxied) Finish(ctx context.Context, _ connector.Ask, _ []byte, r *http.Request) (connector.Identity, error) {
	if !p.trusted(r.RemoteAddr) {
		return connector.Identity{}, connector.Refuse("the request has not come through a proxy of web.trustedProxies")
	}
	return p.back(ctx, r, nil, nil)
}
