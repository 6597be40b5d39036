package dex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	dex "github.com/dexidp/dex/connector"

	"github.com/warifu/warifu/server/connector"
)

// opener is a configuration of Dex.
type opener interface {
	Open(id string, logger *slog.Logger) (dex.Connector, error)
}

// redirectKind is how one kind of Dex's CallbackConnectors is made, beside its configuration.
type redirectKind[C opener] struct {
	// check says what is wrong with a configuration: what Open would refuse, and what would go wrong later.
	check func(c C, r *report)
	// open makes the connector, if it is not Dex's code.
	open func(c C, callback string) (dex.Connector, error)
	// probe asks what Open will ask, within a deadline.
	probe func(ctx context.Context, c C) error
	// fit adds to the address of the upstream what Dex's code does not know to ask.
	fit func(c C, q url.Values, ask connector.Ask)
	// hosts are those that the upstream may call itself by (RFC 9207), beside the one to which browsers are sent.
	hosts func(c C) []string
	// openID has ID tokens, whose nonce is compared.
	openID bool
	// noID is the id of nobody, which Dex's code makes of an answer that names none; "" alone elsewhere.
	noID string
	// once: the connector cannot be asked again.
	once bool
}

func (k redirectKind[C]) build(s Spec, config any) (connector.Connector, []Fault) {
	c := config.(C)
	var r report
	k.check(c, &r)
	callback := r.callback(redirectURI(c), s)
	if k.once && s.Ask > 0 {
		r.fault("", "value", "", "is of a type that cannot be asked again about its users: leave refreshUpstream out")
	}
	if len(r.faults) > 0 {
		return connector.Connector{}, r.faults
	}
	out := redirect{
		upstream: newUpstream(func(ctx context.Context) (dex.Connector, error) {
			if k.probe != nil {
				if err := k.probe(ctx, c); err != nil {
					return nil, err
				}
			}
			if k.open != nil {
				return k.open(c, callback)
			}
			return reopened(s, c, callback)
		}),
		callback: callback, scopes: scopesOf(s), openID: k.openID, noID: k.noID,
		fit: func(q url.Values, ask connector.Ask) {
			if k.fit != nil {
				k.fit(c, q, ask)
			}
		},
	}
	if k.hosts != nil {
		out.hosts = k.hosts(c)
	}
	made := connector.Connector{ID: s.ID, Ask: s.Ask, Redirect: out}
	if !k.once {
		made.Redirect = refreshingRedirect{out, refresher{upstream: out.upstream, scopes: out.scopes}}
	}
	return made, nil
}

// scopesOf are what Dex's code is to ask for. Groups are asked for whatever the app wants: the user's record serves
// all apps.
func scopesOf(s Spec) dex.Scopes { return dex.Scopes{Groups: !s.SkipGroups, OfflineAccess: s.Ask > 0} }

// reopened opens a copy of a configuration: Open changes some.
func reopened(s Spec, config opener, callback string) (dex.Connector, error) {
	original := reflect.ValueOf(config).Elem()
	fresh := reflect.New(original.Type())
	fresh.Elem().Set(original)
	if field := fresh.Elem().FieldByName("RedirectURI"); field.IsValid() {
		field.SetString(callback)
	}
	opened, err := fresh.Interface().(opener).Open(s.ID, quietLogger(s.Logger, s.ID))
	if err != nil {
		return nil, judged(err, opening)
	}
	return opened, nil
}

func redirectURI(config any) string {
	if field := reflect.ValueOf(config).Elem().FieldByName("RedirectURI"); field.IsValid() {
		return field.String()
	}
	return ""
}

// callback is where browsers come back to: the redirectURI of the configuration, which is one of this server's.
func (r *report) callback(redirectURI string, s Spec) string {
	switch {
	case len(s.Callbacks) == 0:
		r.fault("redirectURI", "value", "", "cannot be told without the issuer")
		return ""
	case redirectURI == "":
		return s.Callbacks[0]
	case !slices.Contains(s.Callbacks, redirectURI):
		r.fault("redirectURI", "value", s.Callbacks[0], "must be an address of this server, %s",
			strings.Join(s.Callbacks, " or "))
	}
	return redirectURI
}

// redirect is a CallbackConnector of Dex.
type redirect struct {
	*upstream
	callback string
	scopes   dex.Scopes
	openID   bool
	noID     string
	hosts    []string
	fit      func(q url.Values, ask connector.Ask)
}

// kept travels from Start to Finish.
type kept struct {
	Data []byte `json:"d,omitempty"` // of Dex's code
	Host string `json:"h"`           // to which the browser went
}

// Start is [connector.Redirect.Start].
func (c redirect) Start(ctx context.Context, ask connector.Ask) (connector.Away, error) {
	away, err := call(ctx, c.upstream, func(_ context.Context, conn dex.Connector) (connector.Away, error) {
		opened, is := conn.(dex.CallbackConnector)
		if !is {
			return connector.Away{}, plain{errors.New("the connector sends no browser anywhere")}
		}
		address, data, err := opened.LoginURL(c.scopes, c.callback, ask.State)
		if err != nil {
			return connector.Away{}, err
		}
		u, err := url.Parse(address)
		if err != nil || u.Host == "" {
			return connector.Away{}, plain{errors.New("the upstream has named no address for browsers")}
		}
		q := u.Query()
		if c.openID {
			q.Set("nonce", ask.Nonce)
		}
		c.fit(q, ask)
		u.RawQuery = q.Encode()
		keep, err := json.Marshal(kept{data, u.Host})
		if err != nil {
			return connector.Away{}, plain{fmt.Errorf("what is kept: %w", err)}
		}
		return connector.Away{URL: u.String(), Keep: keep}, nil
	})
	return away, judged(err, opening)
}

// Finish is [connector.Redirect.Finish].
func (c redirect) Finish(
	ctx context.Context, ask connector.Ask, keep []byte, r *http.Request,
) (connector.Identity, error) {
	var k kept
	if err := json.Unmarshal(keep, &k); err != nil {
		return connector.Identity{}, plain{errors.New("what was kept is not understood")}
	}
	q := r.URL.Query()
	if err := c.answered(q, k.Host); err != nil {
		return connector.Identity{}, err
	}
	var n *nonce
	if c.openID {
		n = &nonce{want: ask.Nonce}
	}
	who, err := c.back(ctx, r, k.Data, n)
	if n != nil && (n.wrong.Load() || err == nil && !n.right.Load()) {
		return connector.Identity{}, connector.Refuse("the ID token is not for this sign-in: its nonce is another one")
	}
	return who, err
}

// back has Dex's code take the answer.
func (c redirect) back(ctx context.Context, r *http.Request, data []byte, n *nonce) (connector.Identity, error) {
	who, err := call(ctx, c.upstream, func(ctx context.Context, conn dex.Connector) (dex.Identity, error) {
		opened, is := conn.(dex.CallbackConnector)
		if !is {
			return dex.Identity{}, plain{errors.New("the connector takes no browser back")}
		}
		return opened.HandleCallback(c.scopes, data, r.Clone(clientContext(ctx, n)))
	})
	if err != nil {
		return connector.Identity{}, judged(err, signingIn)
	}
	if who.UserID == c.noID {
		who.UserID = ""
	}
	return refresher{scopes: c.scopes}.askable(who)
}

// answered looks at the parameters with which an upstream sends a browser back, which may be those of another upstream
// (RFC 9207) if that one is out to mix them up.
func (c redirect) answered(q url.Values, host string) error {
	for _, name := range []string{"code", "error", "iss"} {
		if len(q[name]) > 1 {
			return connector.Refuse("the answer has the parameter %s twice", name)
		}
	}
	if issuer := q.Get("iss"); issuer != "" {
		u, err := url.Parse(issuer)
		if err != nil || u.Host == "" || u.Host != host && !slices.Contains(c.hosts, u.Host) {
			return connector.Refuse("the answer is of another issuer (iss) than the upstream that was asked")
		}
	}
	if err := refusedAtUpstream(q.Get("error")); err != nil {
		return err
	}
	if q.Get("code") == "" {
		return connector.Refuse("the answer has no code")
	}
	return nil
}

// identity is how this server says what Dex's code says. Dex makes of its Username the claim name, and of its
// PreferredUsername the claim preferred_username: apps see the same here.
func identity(who dex.Identity) (connector.Identity, error) {
	if who.UserID == "" || len(who.UserID) > 1024 {
		return connector.Identity{}, plain{fmt.Errorf("the upstream names its user by %d bytes, but 1 to 1024 are taken",
			len(who.UserID))}
	}
	return connector.Identity{
		UserID: who.UserID, Name: who.Username, Username: who.PreferredUsername, PreferredUsername: who.PreferredUsername,
		Email: who.Email, EmailVerified: who.EmailVerified && who.Email != "", Groups: who.Groups,
	}, nil
}

// askable is an identity with what is needed to ask again, if somebody will.
func (f refresher) askable(who dex.Identity) (connector.Identity, error) {
	out, err := identity(who)
	if err != nil || !f.scopes.OfflineAccess {
		return out, err
	}
	if out.Data, err = json.Marshal(remembered{who.UserID, who.ConnectorData}); err != nil {
		return connector.Identity{}, plain{fmt.Errorf("what is remembered: %w", err)}
	}
	return out, nil
}

// remembered is [connector.Identity.Data]: the upstream's own name of the user, and what Dex's code wants to know
// again.
type remembered struct {
	UserID string `json:"u"`
	Data   []byte `json:"d,omitempty"`
}

// refresher is a RefreshConnector of Dex.
type refresher struct {
	upstream *upstream
	scopes   dex.Scopes
	// stands asks whether the upstream still has a user, where Dex's code does not tell that from a fault; nil elsewhere.
	stands func(ctx context.Context, userID string) error
}

type refreshingRedirect struct {
	redirect
	refresher
}

// Refresh is [connector.Refresher.Refresh].
func (f refresher) Refresh(ctx context.Context, who connector.Identity) (connector.Identity, error) {
	var known remembered
	if err := json.Unmarshal(who.Data, &known); err != nil || known.UserID == "" {
		return connector.Identity{}, plain{errors.New("nothing is stored to ask again with")}
	}
	now, err := call(ctx, f.upstream, func(ctx context.Context, conn dex.Connector) (dex.Identity, error) {
		if f.stands != nil {
			if err := f.stands(ctx, known.UserID); err != nil {
				return dex.Identity{}, err
			}
		}
		opened, is := conn.(dex.RefreshConnector)
		if !is {
			return dex.Identity{}, plain{errors.New("the connector cannot be asked again")}
		}
		return opened.Refresh(clientContext(ctx, nil), f.scopes, dex.Identity{
			UserID: known.UserID, Username: who.Name, PreferredUsername: who.PreferredUsername, Email: who.Email,
			EmailVerified: who.EmailVerified, Groups: who.Groups, ConnectorData: known.Data,
		})
	})
	switch {
	case err != nil:
		return connector.Identity{}, judged(err, askingAgain)
	case now.UserID != known.UserID:
		return connector.Identity{}, connector.Refuse("the upstream answers with another user")
	}
	if now.ConnectorData == nil {
		now.ConnectorData = known.Data
	}
	return f.askable(now)
}
