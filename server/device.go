package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// The device authorization grant (RFC 8628): a device without a browser shows a code, somebody types it into the browser of
// another one and decides there, and the device polls until they have.
//
//	device ─ /oauth/device_authorization ─ device_code, user_code ─ /oauth/token (polls) ─ tokens
//	person ─ /device ─ code ─ sign-in ─ is that your device? ─ approved or denied
//
// The device code is a sealed string that names the record in storage: garbage never reaches etcd, and who reads the database
// cannot make one. Asking for codes is one write, so how often a client may is limited in memory, at each replica: the id of
// a public client is no secret. A poll that comes too early is answered from memory as well; any other is one read; the one
// that gets tokens a transaction more, which creates the grant and takes the record away. A device code that comes again after
// that ends the grant, as a code does.
//
// A grant of a device lives apart from the browser in which it was approved: signing out there does not sign the device out, and
// its ID token has no sid.
const (
	deviceInterval = 5 * time.Second // between polls (RFC 8628 section 3.2), and what slow_down adds (section 3.5)
	// devicePunctual is how much too early a poll may come: clients sleep for the interval, and networks vary.
	devicePunctual = time.Second
	// deviceSlowest is where slow_down stops to add, so that a client that ignores it is slowed and not starved.
	deviceSlowest = time.Minute

	// Of one client at one replica: so many device authorizations a second, and so many at once.
	devicesPerSecond = 10
	devicesAtOnce    = 100
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
	asking  *recent[*rate.Limiter] // by client
	polling *recent[polled]        // by grant
}

// polled is how a device code was polled for.
type polled struct {
	next     time.Time // not before
	interval time.Duration
}

func newDevices() *devices {
	return &devices{asking: newRecent[*rate.Limiter](1000), polling: newRecent[polled](10_000)}
}

// mayAsk says whether a client may have another device authorization now.
func (d *devices) mayAsk(clientID string, now time.Time) (free bool) {
	d.asking.use(clientID, func(limit **rate.Limiter) {
		if *limit == nil {
			*limit = rate.NewLimiter(devicesPerSecond, devicesAtOnce)
		}
		free = (*limit).AllowN(now, 1)
	})
	return free
}

// early says whether a poll for a grant comes too early, which makes the interval longer from then on.
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

// DeviceAuthorization is the device authorization endpoint (RFC 8628 section 3.1): one write.
func (p *provider) DeviceAuthorization(ctx context.Context, r *op.ClientRequest[oidc.DeviceAuthorizationRequest]) (*op.Response, error) {
	c, now := r.Client.(*client), p.now()
	if !mayUse(c.Client, GrantDeviceCode) {
		return nil, unauthorizedClient(GrantDeviceCode)
	}
	scopes, err := p.checkScopes(c.Client, r.Form.Get("scope"))
	resources := r.Form["resource"]
	if err == nil {
		err = p.checkResources(c.Client, resources)
	}
	var fault *oauthFault
	if errors.As(err, &fault) {
		return nil, fail(http.StatusBadRequest, fault.code, fault.description)
	}
	if !p.devices.mayAsk(c.ID, now) {
		return nil, fail(http.StatusTooManyRequests, codeTemporarilyUnavailable, "the client asks for too many device codes; try again later")
	}
	device := storage.Device{
		Grant: storage.NewGrantID(), ClientID: c.ID, Scopes: scopes, Resources: resources,
		CreatedAt: now.UTC(), ExpiresAt: now.Add(p.life.DeviceCode).UTC(),
	}
	userCode := newUserCode()
	for err = p.store.CreateDevice(ctx, userCode, device); errors.Is(err, storage.ErrConflict); {
		userCode = newUserCode() // as rare as a right guess
		err = p.store.CreateDevice(ctx, userCode, device)
	}
	if err != nil {
		return nil, p.unavailable(ctx, "creating a device authorization", err)
	}
	sealed, err := p.seal(storage.SealDevice, deviceCode{
		UserCode: userCode, Grant: device.Grant, Client: c.ID, Expires: device.ExpiresAt.UnixMilli()})
	if err != nil {
		return nil, p.unavailable(ctx, "sealing a device code", err)
	}
	shown := shownUserCode(userCode)
	return op.NewResponse(oidc.DeviceAuthorizationResponse{
		DeviceCode: sealed, UserCode: shown, VerificationURI: p.endpoint(pathDevice),
		VerificationURIComplete: p.endpoint(pathDevice) + "?" + url.Values{fieldUserCode: {shown}}.Encode(),
		ExpiresIn:               int(p.life.DeviceCode / time.Second), Interval: int(deviceInterval / time.Second),
	}), nil
}

// DeviceToken answers a device that polls (RFC 8628 section 3.4 and 3.5).
func (p *provider) DeviceToken(ctx context.Context, r *op.ClientRequest[oidc.DeviceAccessTokenRequest]) (*op.Response, error) {
	c := r.Client.(*client)
	reply, err := p.poll(ctx, c, r)
	return p.settled(ctx, c, reply, err)
}

func (p *provider) poll(ctx context.Context, c *client, r *op.ClientRequest[oidc.DeviceAccessTokenRequest]) (*op.Response, error) {
	now := p.now()
	var code deviceCode
	if err := p.open(storage.SealDevice, r.Data.DeviceCode, &code); errors.Is(err, storage.ErrNotFound) {
		return nil, invalidGrant("the device code is invalid")
	} else if err != nil {
		return nil, p.unavailable(ctx, "opening a device code", err)
	}
	if code.Client != c.ID {
		return nil, invalidGrant("the device code was issued to another client")
	}
	// Before the poll counts: who has to send a nonce may try again at once.
	key, err := p.tokenKey(ctx, c.Client, r.Header, "")
	if err != nil {
		return nil, err
	}
	if err := p.spend(ctx, c); err != nil {
		return nil, err
	}
	if p.devices.early(code.Grant, now) {
		return nil, fail(http.StatusBadRequest, string(oidc.SlowDown), "the device polls too often; from now on wait 5 seconds longer")
	}
	state, err := p.store.DeviceState(ctx, code.UserCode, c.ID, code.Grant)
	switch {
	case err != nil:
		return nil, p.unavailable(ctx, "reading a device authorization", err)
	case state.Redeemed:
		return nil, p.replayedDevice(ctx, code)
	case now.After(time.UnixMilli(code.Expires)):
		return nil, fail(http.StatusBadRequest, string(oidc.ExpiredToken), "the device code has expired; ask for another one")
	case state.Device == nil:
		return nil, invalidGrant("the device code was used before; everything issued from it is revoked")
	case state.Device.Decision == storage.DeviceDenied:
		return nil, fail(http.StatusBadRequest, codeAccessDenied, "the user denied the request")
	case state.Device.Decision != storage.DeviceApproved:
		return nil, fail(http.StatusBadRequest, string(oidc.AuthorizationPending), "the user has not decided yet")
	}
	return p.redeemDevice(ctx, c, code, state.Device, key, r.Form["resource"])
}

// redeemDevice issues tokens for what a user approved: one transaction.
func (p *provider) redeemDevice(ctx context.Context, c *client, code deviceCode, device *storage.Device, key string, resources []string) (*op.Response, error) {
	now := p.now()
	var allowed approval
	if err := json.Unmarshal(device.Approval, &allowed); err != nil {
		return nil, p.unavailable(ctx, "reading what was approved", err)
	}
	grant := storage.Grant{
		ID: allowed.Grant, ClientID: c.ID, UserID: allowed.User, AuthTime: time.UnixMilli(allowed.AuthTime).UTC(), CreatedAt: now.UTC()}
	refresh := refreshToken{approval: allowed, Generation: 1, Issued: now.UnixMilli()}
	refresh.DPoPKey = boundTo(c.Client, key)
	for range changes {
		if err := mustProve(c.Client, key); err != nil {
			return nil, err
		}
		// Both may have gone since the user approved.
		if !mayUse(c.Client, GrantDeviceCode) {
			return nil, unauthorizedClient(GrantDeviceCode)
		}
		grant.ExpiresAt = p.grantEnds(c.Client, now)
		refresh.Ends = grant.ExpiresAt.UnixMilli()
		if grant.Scopes = p.offered(c.Client, allowed.Scopes); len(grant.Scopes) == 0 {
			return nil, invalidGrant("the app may not ask for these scopes any more")
		}
		refresh.Scopes = grant.Scopes
		audience, err := p.audienceOf(allowed.Resources, grant.Scopes, resources)
		if err != nil {
			return nil, err
		}
		signing := p.signAhead(issue{approval: refresh.approval, client: c.Client, scopes: grant.Scopes, audience: audience, key: key,
			withID: slices.Contains(grant.Scopes, oauth.ScopeOpenID)})
		err = p.store.RedeemDevice(ctx, code.UserCode, device, grant, refresh.expires(p.life), storage.Revisions{Client: c.Revision, User: refresh.UserRevision})
		var stale *storage.StaleError
		switch {
		case err == nil:
			return p.tokens(ctx, keptBy(c.Client, refresh), grant.Scopes, signing)
		case errors.Is(err, storage.ErrReplayed):
			p.log.WarnContext(ctx, "device code used twice: its grant was revoked", "client", c.ID, "grant", code.Grant)
			return nil, invalidGrant("the device code was used before; everything issued from it is revoked")
		case errors.Is(err, storage.ErrNotFound):
			return nil, invalidGrant("the device code is not good any more")
		case errors.As(err, &stale):
			if c, refresh.UserRevision, err = p.decideAnew(ctx, c, stale); err != nil {
				return nil, err
			}
		default:
			return nil, p.unavailable(ctx, "redeeming a device code", err)
		}
	}
	return nil, p.unavailable(ctx, "redeeming a device code", storage.ErrConflict)
}

// replayedDevice ends the grant of a device code that was redeemed before.
func (p *provider) replayedDevice(ctx context.Context, code deviceCode) error {
	killed, err := p.store.KillGrant(ctx, code.Client, code.Grant, storage.AuditEntry{
		Actor: storage.ClientActor(code.Client), Action: storage.AuditGrantReplayed, Reason: "device code replayed"})
	if err != nil {
		return p.unavailable(ctx, "redeeming a device code", err)
	}
	if killed {
		p.log.WarnContext(ctx, "device code used twice: its grant was revoked", "client", code.Client, "grant", code.Grant)
	}
	return invalidGrant("the device code was used before; everything issued from it is revoked")
}
