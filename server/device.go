package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The device authorization grant (RFC 8628): a device without a browser shows a code, and a user enters it in the
// browser of another one and decides there, and the device polls until they have.
//
//	device ─ /oauth/device_authorization ─ device_code, user_code ─ /oauth/token (polls) ─ tokens
//	person ─ /device ─ code ─ sign-in ─ is that your device? ─ approved or denied
//
// The device code is a sealed string that names the record in storage: garbage never reaches etcd, and who reads the
// database cannot make one. Asking for codes is one write, so how often a client may is limited in memory, at each
// replica: the id of a public client is no secret. A poll that comes too early is answered from memory as well; any
// other is one read; the one that gets tokens a transaction more, which creates the grant and takes the record away. A
// device code that comes again after that ends the grant, as a code does.
//
// A grant of a device lives apart from the browser in which it was approved: signing out there does not sign the device
// out, and its ID token has no sid.
const (
	deviceInterval = 5 * time.Second // between polls (RFC 8628 section 3.2), and what slow_down adds (section 3.5)
	// devicePunctual is how much too early a poll may come: clients sleep for the interval, and networks vary.
	devicePunctual = time.Second
	// deviceSlowest is where slow_down stops to add, so that a client that ignores it is slowed and not starved.
	deviceSlowest = time.Minute

	// Of one client at one replica: so many device authorizations per second, and so many at once.
	devicesPerSecond = 10
	devicesAtOnce    = 100
	// mostDevices wait for a decision, of all clients together, at each replica: half of them at once, the other half in
	// the life of a code. When half of what may come at once is used up, an address gets so many at once and then so many
	// a second.
	mostDevices          = 20_000
	devicesOfAddress     = 50
	devicesOfAddressRate = 0.5
)

// deviceCode is what a device code holds, sealed.
type deviceCode struct {
	UserCode string `json:"u"`
	Grant    string `json:"g"` // that redeeming it creates
	Client   string `json:"c"`
	Expires  int64  `json:"x"` // Unix milliseconds
}

// devices is what each replica remembers of devices.
type devices struct {
	all     *rate.Limiter
	from    *recent[*rate.Limiter] // by network
	asking  *recent[*rate.Limiter] // by client
	polling *recent[polled]        // by grant
}

// polled is how a device code was polled for.
type polled struct {
	next     time.Time // not before
	interval time.Duration
}

func newDevices(life time.Duration) *devices {
	return &devices{
		all:    rate.NewLimiter(devicesRate(life), mostDevices/2),
		from:   newRecent[*rate.Limiter](10_000),
		asking: newRecent[*rate.Limiter](1000), polling: newRecent[polled](10_000),
	}
}

// devicesRate is how many devices there may be in a second where a code lives for so long.
func devicesRate(life time.Duration) rate.Limit {
	return rate.Limit(mostDevices / 2 / max(life, time.Second).Seconds())
}

// live says how long codes live from now on.
func (d *devices) live(life time.Duration) { d.all.SetLimit(devicesRate(life)) }

// mayAsk reports whether a client may have another device authorization now, asking from an address.
func (d *devices) mayAsk(clientID string, from netip.Prefix, now time.Time) (free bool) {
	d.asking.use(clientID, func(limit **rate.Limiter) {
		if *limit == nil {
			*limit = rate.NewLimiter(devicesPerSecond, devicesAtOnce)
		}
		free = (*limit).AllowN(now, 1)
	})
	if free && d.all.TokensAt(now) < mostDevices/4 {
		d.from.use(from.String(), func(limit **rate.Limiter) {
			if *limit == nil {
				*limit = rate.NewLimiter(devicesOfAddressRate, devicesOfAddress)
			}
			free = (*limit).AllowN(now, 1)
		})
	}
	return free && d.all.AllowN(now, 1)
}

// early reports whether a poll for a grant comes too early, which makes the interval longer from then on.
func (d *devices) early(grant string, now time.Time) (early bool) {
	d.polling.use(grant, func(p *polled) {
		if p.interval == 0 {
			p.interval = deviceInterval
		}
		if early = now.Before(p.next.Add(-devicePunctual)); early {
			p.interval = min(p.interval+deviceInterval, deviceSlowest)
			return
		}
		p.next = now.Add(p.interval)
	})
	return early
}

// deviceAuthorization is the device authorization endpoint (RFC 8628 section 3.1): one write.
func (s *Server) deviceAuthorization(w http.ResponseWriter, r *http.Request) error {
	q, err := s.spentFirst(r, pathDeviceAuth)
	if err != nil {
		return err
	}
	reply, err := s.authorizeDevice(r.Context(), q, networkOf(s.addressOf(r)))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, reply)
	return nil
}

func (s *Server) authorizeDevice(ctx context.Context, q *clientRequest,
	from netip.Prefix) (*oidc.DeviceAuthorizationResponse, error) {
	c, now := q.client, s.now()
	if !c.Client.MayUse(oauth.GrantDeviceCode) {
		return nil, unauthorizedClient(c.Client, oauth.GrantDeviceCode)
	}
	sent, err := decode[oidc.DeviceAuthorizationRequest](q.form)
	if err != nil {
		return nil, err
	}
	scopes, err := s.checkScopes(c.Client, sent.Scopes.String())
	if err != nil {
		return nil, err
	}
	resources, err := s.checkResources(q.form["resource"])
	if err != nil {
		return nil, err
	}
	if !s.devices.mayAsk(c.ID, from, now) {
		return nil, &statusError{http.StatusTooManyRequests, oauth.Refuse(oauth.CodeTemporarilyUnavailable,
			oauth.RuleRateLimit,
			"the client asks for too many device codes; try again later")}
	}
	device := storage.Device{
		Grant: storage.NewGrantID(), ClientID: c.ID, Scopes: scopes, Resources: resources,
		CreatedAt: now.UTC(), ExpiresAt: now.Add(s.life.DeviceCode).UTC(),
	}
	userCode := newUserCode()
	for err = s.store.CreateDevice(ctx, userCode, device); errors.Is(err, storage.ErrConflict); {
		userCode = newUserCode() // as rare as a right guess
		err = s.store.CreateDevice(ctx, userCode, device)
	}
	if err != nil {
		return nil, fmt.Errorf("create device authorization: %w", err)
	}
	sealed, err := s.seal(storage.SealDevice, deviceCode{
		UserCode: userCode, Grant: device.Grant, Client: c.ID, Expires: device.ExpiresAt.UnixMilli()})
	if err != nil {
		return nil, fmt.Errorf("seal device code: %w", err)
	}
	shown := shownUserCode(userCode)
	return &oidc.DeviceAuthorizationResponse{
		DeviceCode: sealed, UserCode: shown, VerificationURI: s.endpoint(pathDevice),
		VerificationURIComplete: s.endpoint(pathDevice) + "?" + url.Values{fieldUserCode: {shown}}.Encode(),
		ExpiresIn:               int(s.life.DeviceCode / time.Second), Interval: int(deviceInterval / time.Second),
	}, nil
}

// pollDevice answers a device that polls (RFC 8628 sections 3.4 and 3.5).
func (s *Server) pollDevice(ctx context.Context, q *clientRequest) (any, error) {
	c, now := q.client, s.now()
	var code deviceCode
	if err := s.open(storage.SealDevice, q.form.Get("device_code"), &code); errors.Is(err, storage.ErrNotFound) {
		return nil, invalidGrant(oauth.RuleDeviceCodeInvalid, "the device code is invalid")
	} else if err != nil {
		return nil, fmt.Errorf("open device code: %w", err)
	}
	if code.Client != c.ID {
		return nil, invalidGrant(oauth.RuleDeviceCodeOtherClient, "the device code was issued to another client")
	}
	// Before the poll counts: a device that has to send a nonce may try again at once.
	key, err := s.tokenKey(q, "")
	if err != nil {
		return nil, err
	}
	if err := s.spend(ctx, c); err != nil {
		return nil, err
	}
	if s.devices.early(code.Grant, now) {
		return nil, oauth.Refuse(oauth.CodeSlowDown, oauth.RuleDevicePollEarly,
			"the device polls too often; from now on wait 5 seconds longer")
	}
	state, err := s.store.DeviceState(ctx, code.UserCode, c.ID, code.Grant)
	switch {
	case err != nil:
		return nil, fmt.Errorf("poll for a device code: %w", err)
	case state.Redeemed:
		return nil, s.replayedDevice(ctx, code)
	case now.After(time.UnixMilli(code.Expires)):
		return nil, oauth.Refuse(oauth.CodeExpiredToken, oauth.RuleDeviceCodeExpired,
			"the device code has expired; ask for another one")
	case state.Device == nil:
		return nil, deviceCodeUsed()
	case state.Device.Decision == storage.DeviceDenied:
		return nil, oauth.Refuse(oauth.CodeAccessDenied, oauth.RuleUserDenied, "the user denied the request")
	case state.Device.Decision != storage.DeviceApproved:
		return nil, oauth.Refuse(oauth.CodeAuthorizationPending, oauth.RuleDeviceCodePending, "the user has not decided yet")
	}
	return s.redeemDevice(ctx, q, code, state.Device, key)
}

// redeemDevice issues tokens for what a user approved: one transaction.
func (s *Server) redeemDevice(ctx context.Context, q *clientRequest, code deviceCode, device *storage.Device,
	key string) (any, error) {
	now := s.now()
	var allowed approval
	if err := json.Unmarshal(device.Approval, &allowed); err != nil {
		return nil, fmt.Errorf("read what was approved: %w", err)
	}
	grant := storage.Grant{
		ID: allowed.Grant, ClientID: q.client.ID, UserID: allowed.User, AuthTime: time.UnixMilli(allowed.AuthTime).UTC(),
		CreatedAt: now.UTC(),
		Term:      allowed.UserTerm, AsOf: allowed.AsOf}
	refresh := refreshToken{approval: allowed, Generation: 1, Issued: now.UnixMilli()}
	refresh.DPoPKey, refresh.AsOf = boundTo(q.client.Client, key), 0
	reply, err := s.decide(ctx, q.client, allowed, func(c *client, at storage.Revisions) (any, error) {
		refresh.UserRevision = at.User
		if !c.Issued(device.CreatedAt) {
			return nil, invalidGrant(oauth.RuleClientReturned, "the device code is older than the client")
		}
		// Both may have gone since the user approved.
		if !c.Client.MayUse(oauth.GrantDeviceCode) {
			return nil, unauthorizedClient(c.Client, oauth.GrantDeviceCode)
		}
		if grant.Scopes = s.offered(c.Client, allowed.Scopes); len(grant.Scopes) == 0 {
			return nil, scopesWithdrawn(c.Client)
		}
		if err := mustProve(c.Client, key); err != nil {
			return nil, err
		}
		audience, err := s.audienceOf(ctx, allowed.Resources, grant.Scopes, q.form["resource"])
		if err != nil {
			return nil, err
		}
		form, err := s.formOf(c.Client, audience)
		if err != nil {
			return nil, err
		}
		grant.ExpiresAt = s.grantEnds(c.Client, now)
		refresh.Scopes, refresh.Ends, refresh.Access = grant.Scopes, grant.ExpiresAt.UnixMilli(), s.ruleDigest(c.Client)
		sign := s.signAhead(ctx, tokenSpec{approval: refresh.approval, client: c.Client, scopes: grant.Scopes,
			audience: audience, form: form, key: key, withID: slices.Contains(grant.Scopes, oauth.ScopeOpenID),
			peers:   s.peersOf(c.Client, grant.Scopes),
			told:    s.idTokenTells(c.Client, grant.Scopes, nil),
			toldAPI: s.tokenTells(c.Client, grant.Scopes, c.AccessTokenClaims)})
		user, err := s.store.RedeemDevice(ctx, code.UserCode, device, grant, refresh.expires(s.life), at)
		switch {
		case err == nil:
			return s.tokens(keptBy(c.Client, refresh), grant.Scopes, user, sign)
		case errors.Is(err, storage.ErrReplayed):
			s.journal.replayed(ctx, "device code", c.ID, code.Grant)
			return nil, deviceCodeUsed()
		case errors.Is(err, storage.ErrWithdrawn):
			return nil, consentWithdrawn()
		case errors.Is(err, storage.ErrNotFound):
			return nil, invalidGrant(oauth.RuleDeviceCodeInvalid, "the device code is no longer valid")
		}
		return nil, fmt.Errorf("redeem device code: %w", err)
	})
	if e := refused(err); e != nil && (e.Rule == oauth.RuleUserNotAdmitted || e.Rule == oauth.RuleFactorNeeded) {
		e.Code = oauth.CodeAccessDenied // RFC 8628 section 3.5
	}
	return reply, err
}

func deviceCodeUsed() *oauth.Error {
	return invalidGrant(oauth.RuleDeviceCodeUsed, "the device code was used before; everything issued from it is revoked")
}

// replayedDevice ends the grant of a device code that was redeemed before.
func (s *Server) replayedDevice(ctx context.Context, code deviceCode) error {
	killed, err := s.store.KillGrant(ctx, code.Client, code.Grant, storage.AuditEntry{
		Actor: storage.ClientActor(code.Client), Action: storage.AuditGrantReplayed, Reason: "device code replayed"})
	if err != nil {
		return fmt.Errorf("end the grant of a device code: %w", err)
	}
	if killed {
		s.journal.replayed(ctx, "device code", code.Client, code.Grant)
	}
	return deviceCodeUsed()
}
