package storage

import (
	"encoding/json"
	"time"

	"github.com/warifu/warifu/server/oauth"
)

// Client is an OAuth client (RFC 6749 section 2): of an app, registered from its manifest, or one that registered
// itself.
type Client struct {
	ID  string
	App string
	oauth.Client
	Secrets []ClientSecret
	// RegistrationToken is the SHA-256 of the token with which a client that registered itself is managed (RFC 7592);
	// an app's client has none.
	RegistrationToken []byte
	// Vouched: it registered itself with an initial access token, which is the operator's word for it.
	Vouched bool
	// Trusted: an operator has given their word that its users need not be asked for consent, for what the record says.
	Trusted bool
	// ApplicationType is what it called itself when it registered (OpenID Connect Dynamic Client Registration 1.0 section
	// 2); empty is web.
	ApplicationType string
	// AnyScope: Scopes are no limit to what it may ask users for, but only what it asks for when it names none. It belongs
	// to no app, and has named no scope, or registered where anybody may.
	AnyScope bool
	// Disabled clients are unknown to every protocol endpoint: their app is being deleted.
	Disabled  bool
	CreatedAt time.Time
	// Returned is CreatedAt of a client whose id an earlier client of the app has had; zero for an id that is new.
	Returned  time.Time
	UpdatedAt time.Time

	// Revision is etcd's modification revision of the record; 0 when it is not stored.
	Revision int64
}

// clientRecord is a client as it is stored, in the order in which its members have always been written.
type clientRecord struct {
	ID                     string         `json:"id"`
	App                    string         `json:"app"`
	Name                   string         `json:"name"`
	Public                 bool           `json:"public,omitempty"`
	RedirectURIs           []string       `json:"redirectUris"`
	PostLogoutRedirectURIs []string       `json:"postLogoutRedirectUris,omitempty"`
	Scopes                 []string       `json:"scopes"`
	LogoURI                string         `json:"logoUri,omitempty"`
	TOSURI                 string         `json:"tosUri,omitempty"`
	PolicyURI              string         `json:"policyUri,omitempty"`
	Secrets                []ClientSecret `json:"secrets,omitempty"`
	oauth.ClientMetadata
	RegistrationToken []byte    `json:"registrationToken,omitempty"`
	Vouched           bool      `json:"vouched,omitempty"`
	Trusted           bool      `json:"trusted,omitempty"`
	ApplicationType   string    `json:"applicationType,omitempty"`
	AnyScope          bool      `json:"anyScope,omitempty"`
	Disabled          bool      `json:"disabled,omitempty"`
	CreatedAt         time.Time `json:"createdAt"`
	Returned          time.Time `json:"returned,omitzero"`
	UpdatedAt         time.Time `json:"updatedAt"`
}

// MarshalJSON writes the record.
func (c Client) MarshalJSON() ([]byte, error) {
	return json.Marshal(clientRecord{
		ID: c.ID, App: c.App, Name: c.ClientName, Public: c.Public, RedirectURIs: c.RedirectURIs,
		PostLogoutRedirectURIs: c.PostLogoutRedirectURIs, Scopes: c.Scopes, LogoURI: c.LogoURI, TOSURI: c.TOSURI,
		PolicyURI: c.PolicyURI, Secrets: c.Secrets, ClientMetadata: c.ClientMetadata, RegistrationToken: c.RegistrationToken,
		Vouched: c.Vouched, Trusted: c.Trusted, ApplicationType: c.ApplicationType, AnyScope: c.AnyScope,
		Disabled: c.Disabled, CreatedAt: c.CreatedAt, Returned: c.Returned, UpdatedAt: c.UpdatedAt,
	})
}

// UnmarshalJSON reads the record.
func (c *Client) UnmarshalJSON(data []byte) error {
	var r clientRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	*c = Client{
		ID: r.ID, App: r.App, Secrets: r.Secrets, RegistrationToken: r.RegistrationToken,
		Vouched: r.Vouched, Trusted: r.Trusted, ApplicationType: r.ApplicationType, AnyScope: r.AnyScope,
		Disabled: r.Disabled, CreatedAt: r.CreatedAt, Returned: r.Returned, UpdatedAt: r.UpdatedAt,
		Client: oauth.Client{
			ClientName: r.Name, Public: r.Public, RedirectURIs: r.RedirectURIs, PostLogoutRedirectURIs: r.PostLogoutRedirectURIs,
			Scopes: r.Scopes, LogoURI: r.LogoURI, TOSURI: r.TOSURI, PolicyURI: r.PolicyURI, ClientMetadata: r.ClientMetadata,
		},
	}
	return nil
}

// ClientSecret is one of a client's secrets: verified by its hash, kept sealed to be handed out again.
type ClientSecret struct {
	ID        string    `json:"id"`
	Hash      []byte    `json:"hash"` // SHA-256; the secret has 256 random bits, so no slow hash is needed
	Sealed    []byte    `json:"sealed"`
	CreatedAt time.Time `json:"createdAt"`
}

// User is a person who can sign in, with the standard claims of OpenID Connect Core 1.0 section 5.1 that apps may
// learn. An empty field is unknown.
//
// Two records are compared with ==, so every field is a plain value.
type User struct {
	// ID is the subject of tokens: ASCII characters, never reassigned, see [CheckUserID].
	ID string `json:"id"`
	// Connector that vouches for this user, and what it calls them, where that is not the id ([Store.ArriveUser]).
	Connector     string `json:"connector"`
	UpstreamID    string `json:"upstreamId,omitempty"`
	Username      string `json:"username,omitempty"` // with which they sign in; preferred_username, unless that is there
	Name          string `json:"name,omitempty"`
	Email         string `json:"email,omitempty"`
	EmailVerified bool   `json:"emailVerified,omitempty"`
	Profile
	Address           Address `json:"address,omitzero"`
	PreferredUsername string  `json:"preferredUsername,omitempty"`
	// Groups that the user is in, as [NamesOf] has made them, and Attributes, by name, as [AttributesOf] has: what the
	// connector knows of the user beside the standard claims.
	Groups     JSON `json:"groups,omitempty"`
	Attributes JSON `json:"attributes,omitempty"`
	Disabled   bool `json:"disabled,omitempty"`
	// Managed: an operator keeps the account in the database, by commands, and its passwords are here. Its connector is
	// that of staticPasswords, whose users it never meets.
	Managed bool `json:"managed,omitempty"`
	// Left: the user is disabled only because their connector is no longer there, or because they sign in as another user
	// now ([Store.LinkUser]). It is set beside Disabled, which older versions know, and goes when they arrive again.
	Left bool `json:"left,omitempty"`
	// Origin is the identity whose account this is by itself, while another connector vouches for it, see [User.identity].
	Origin    string    `json:"origin,omitempty"`
	UpdatedAt time.Time `json:"updatedAt"`
	// Credential tells apart what the user signs in with, such as one password and the next: a fingerprint that opens
	// nothing and says nothing about it. Empty: not known, as in records of older versions.
	Credential string `json:"credential,omitempty"`
	// Term is the user's present term, see [User.Stands]. The store sets it; a later term is a higher number.
	Term int64 `json:"term,omitempty"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// Profile is the rest of the standard claims, which are unknown for most users.
type Profile struct {
	GivenName  string `json:"givenName,omitempty"`
	FamilyName string `json:"familyName,omitempty"`
	MiddleName string `json:"middleName,omitempty"`
	Nickname   string `json:"nickname,omitempty"`
	ProfileURL string `json:"profile,omitempty"` // a page about the user
	PictureURL string `json:"picture,omitempty"`
	WebsiteURL string `json:"website,omitempty"`
	Gender     string `json:"gender,omitempty"`
	// YYYY-MM-DD, with the year 0000 if it is withheld, or YYYY alone
	Birthdate           string `json:"birthdate,omitempty"`
	Zoneinfo            string `json:"zoneinfo,omitempty"` // IANA, as in Asia/Tokyo
	Locale              string `json:"locale,omitempty"`   // BCP 47, as in ja-JP
	PhoneNumber         string `json:"phoneNumber,omitempty"`
	PhoneNumberVerified bool   `json:"phoneNumberVerified,omitempty"`
}

// Address is a postal address (OpenID Connect Core 1.0 section 5.1.1).
type Address struct {
	Formatted     string `json:"formatted,omitempty"` // as on a label, with line breaks
	StreetAddress string `json:"streetAddress,omitempty"`
	Locality      string `json:"locality,omitempty"`
	Region        string `json:"region,omitempty"`
	PostalCode    string `json:"postalCode,omitempty"`
	Country       string `json:"country,omitempty"`
}

// Active reports whether the user may sign in and their grants may be used. A nil user is gone.
func (u *User) Active() bool { return u != nil && !u.Disabled }

// Stands says whether what was begun for the user in a term still counts: a session, a grant with all its tokens, a
// code, the approval of a device, a consent. Each carries the term in which it was begun. A term ends when the user is
// disabled or removed, comes back, or gets another password, and when an operator ends it ([Store.EndUser]); nothing of
// it ever counts again. Terms are numbers that are compared, so no clock has a say. A nil user is gone.
func (u *User) Stands(term int64) bool { return u.Active() && u.Term == term }

// Active reports whether the client may be used. A nil client is gone.
func (c *Client) Active() bool { return c != nil && !c.Disabled }

// Issued says whether what was issued to this id at a time was issued to this client. The id of an app's client comes
// back with the app, and what is still out from before does not.
func (c *Client) Issued(at time.Time) bool { return c.Returned.IsZero() || !at.Before(c.Returned) }

// FormerClient is the client that an app has had.
type FormerClient struct {
	ID    string    `json:"id"`
	Ended time.Time `json:"ended"`
}

// Session is a browser's sign-in.
type Session struct {
	UserID    string    `json:"userId"`
	AuthTime  time.Time `json:"authTime"`
	AMR       []string  `json:"amr"`
	ACR       string    `json:"acr,omitempty"` // as an identity provider told it
	ExpiresAt time.Time `json:"expiresAt"`
	// Since is when the browser got it, Address and Agent where from and by what, for the user to tell it from others.
	Since   time.Time `json:"since,omitzero"`
	Address string    `json:"address,omitempty"`
	Agent   string    `json:"agent,omitempty"`
	// Hash is the SHA-256 of the id that opens the session; the store sets it. So the database does not hold the id
	// itself.
	Hash []byte `json:"hash"`
	// Term of the user in which it was begun, see [User.Stands].
	Term int64 `json:"term,omitempty"`

	// SID names the session to others and opens nothing (sid of OpenID Connect Back-Channel Logout 1.0).
	SID string `json:"-"`
	// Uses is what the sign-in uses up, if it has an ID: [Store.CreateSession] marks it in the same transaction.
	Uses Once `json:"-"`
	// Leaves are the user's factors as the sign-in leaves them, at the revision at which they were read, because a counter
	// has moved or a code is used up; nil: as they were.
	Leaves *Factors `json:"-"`
}

// Grant is what a user's consent gave a client: the family of all tokens that one code led to. It is written once.
type Grant struct {
	ID       string    `json:"id"`
	ClientID string    `json:"clientId"`
	UserID   string    `json:"userId"`
	Scopes   []string  `json:"scopes"`
	AuthTime time.Time `json:"authTime"`
	// Claims are those that the client requested from userinfo beside those of its scopes, in the format of package
	// server.
	Claims json.RawMessage `json:"claims,omitempty"`
	// CreatedAt is when the code was redeemed; ExpiresAt when the last token of the family ends.
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	// Session is the sid of the sign-in from which a grant with openid came; it expires at SessionEnds. If it is ended
	// earlier, the grant ends with it, unless OutlivesSession (offline_access). The session has the note of that, and
	// only older records of grants have it as well.
	Session         string    `json:"session,omitempty"`
	OutlivesSession bool      `json:"outlivesSession,omitempty"`
	SessionEnds     time.Time `json:"-"`
	// Host is that of an app behind forward auth, at which a browser has signed in. A session needs one such grant for
	// each host: another one takes the place of those before it. The note of the session has it, and no record of a grant.
	Host string `json:"-"`
	// Term of the user in which the user allowed it, see [User.Stands]. A record of an older version has none.
	Term int64 `json:"-"`
	// AsOf is the revision at which the user allowed it ([Presence.AsOf]); 0 is of a code from an older version. A consent
	// that is withdrawn after that takes the code along.
	AsOf int64 `json:"-"`
	// Dead says why the grant died; such a record is a tombstone and holds nothing else.
	Dead string `json:"dead,omitempty"`

	// Generation and RotatedAt are of the refresh chain; only listings fill them.
	Generation int64     `json:"-"`
	RotatedAt  time.Time `json:"-"`
}

// Target is a program of an app that can receive env: a worker, container or service of the manifest.
type Target struct {
	Kind string `json:"kind"` // worker, container or service
	Name string `json:"name"`
}

// Place is a line and a column of a manifest, both from 1.
type Place [2]int

// App is the release record of an app: what was applied last.
type App struct {
	Name     string `json:"name"`
	ClientID string `json:"clientId,omitempty"` // empty: the manifest asks for no client
	Version  string `json:"version,omitempty"`
	// Manifest is app.yml as JSON; Source names where it came from.
	Manifest []byte `json:"manifest"`
	Source   string `json:"source,omitempty"`
	// Lines are the places of keys in that source, by their path, such as spec.oauth.redirectUris. Releases of older
	// versions have none.
	Lines    map[string]Place `json:"lines,omitempty"`
	AutoEnv  bool             `json:"autoEnv,omitempty"`
	Targets  []Target         `json:"targets,omitempty"`
	Deleting bool             `json:"deleting,omitempty"`
	Applied  time.Time        `json:"applied"`
	// Watched: what was applied last came from a manifest that a server follows, which Source names.
	Watched bool `json:"watched,omitempty"`
	// GoneSince is when that manifest was first missed; zero while it is there.
	GoneSince time.Time `json:"goneSince,omitzero"`
	// GoneUnsure: at the last look not everything that a server follows could be read, so the time until the app ends has
	// not begun to count.
	GoneUnsure bool `json:"goneUnsure,omitempty"`
	// Refused is what that manifest says now, when it was not applied because of what it would delete.
	Refused *Refusal `json:"refused,omitempty"`
	// Generation counts the changes of env of the app's targets; it never goes back.
	Generation int64 `json:"generation"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}

// Refusal is a manifest that was not applied.
type Refusal struct {
	Content []byte    `json:"content"` // SHA-256 of the document
	At      time.Time `json:"at"`
	Reason  string    `json:"reason"` // what it would delete, in words
}

// States of a [Delivery].
const (
	DeliveryPending  = "pending"  // not yet accepted by the runtime
	DeliveryRolling  = "rolling"  // accepted, not yet served by every instance
	DeliveryReady    = "ready"    // served
	DeliveryFailed   = "failed"   // the last attempt failed; NextAttempt says when it is tried again
	DeliveryDegraded = "degraded" // given up until an operator retries or applies
)

// Delivery is an outbox entry: the env that a runtime should serve for one target. The latest generation wins.
type Delivery struct {
	App        string `json:"app"`
	Target     Target `json:"target"`
	Runtime    string `json:"runtime,omitempty"` // empty: no runtime serves this target
	Generation int64  `json:"generation"`
	// Remove asks to take the env away; the entry is dropped once the runtime has confirmed that.
	Remove bool `json:"remove,omitempty"`
	// Leaving means that another runtime serves the target now, and this entry takes the env away where it was before.
	Leaving bool   `json:"leaving,omitempty"`
	Digest  string `json:"digest,omitempty"` // keyed, see plugins.Digest
	Sealed  []byte `json:"sealed,omitempty"` // the env, see Store.SealEnv

	State     string `json:"state"`
	Accepted  int64  `json:"accepted,omitempty"`
	Serving   int64  `json:"serving,omitempty"`
	Instances int    `json:"instances,omitempty"`
	Location  string `json:"location,omitempty"`
	// Attempts is how many have failed in a row since Since, when the runtime was first asked for what it does not
	// serve yet.
	Attempts    int       `json:"attempts,omitempty"`
	Since       time.Time `json:"since,omitzero"`
	Error       string    `json:"error,omitempty"`
	Remedy      string    `json:"remedy,omitempty"`
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	// Unreached means degraded because the runtime could not be reached; it is pushed again once the runtime answers.
	Unreached bool      `json:"unreached,omitempty"`
	UpdatedAt time.Time `json:"updatedAt"`

	// Owner is the replica that is pushing this entry, until OwnedUntil. Fence grows with every claim.
	Owner      string    `json:"owner,omitempty"`
	OwnedUntil time.Time `json:"ownedUntil,omitzero"`
	Fence      int64     `json:"fence,omitempty"`

	// Revision is etcd's modification revision of the record.
	Revision int64 `json:"-"`
}
