package clients

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/server/outbound"
	"github.com/warifu/warifu/storage"
)

// Client ID metadata documents (draft-ietf-oauth-client-id-metadata-document-02): a client that is not registered is
// known by the https URL of a document that describes it. Off unless the configuration turns it on.
//
// Such a client has no record. What the document says is kept in memory for a while and judged by the rules of a
// registration; all that is stored of the client is what users allowed it. Its Revision is 0, so the transaction of a
// grant compares that no record has its id: one that an operator stores under a URL takes the place of the document
// there and then.
//
// Anybody can publish a document, so it is trusted less than a registration:
//
//   - it is a public client, or has keys of its own: a document can hold no secret;
//   - it gets nothing but what a user allows: codes, refresh tokens, devices. Client credentials and token exchange are
//     for clients that are known here;
//   - its pairwise subjects are those of the host that it is at, see checkDocumentSector;
//   - pages name the host that the document is from, which is a fact, beside the name in it, which is a claim;
//   - a browser is sent to it only with a code, which a user has allowed, and not with an error (RFC 9700 section
//     4.11.2): else this server would redirect anybody anywhere.
//
// An operator says from which hosts documents are taken ([Options.Hosts]). What a client of a host that is denied by
// name holds ends, see [Clients.EndDenied]; a host that is merely not allowed is refused, and what was allowed to its
// clients comes back with it: a slip in a list must not end what users allowed.
//
// A document is written for many servers. So grant types and scopes that this one does not have for it are left out,
// and do not make it a bad one, as they would a registration.
const (
	// maxDocumentURL is as long as the id of any client.
	maxDocumentURL = 256
	// maxDocument is three times what section 8.7 recommends (5 KB): a document may hold the keys of its client.
	maxDocument = 16 << 10

	// A document says by Cache-Control how long it is good, within bounds (section 5.2).
	documentFresh    = 10 * time.Minute // when it does not say
	documentFreshMin = time.Minute
	documentFreshMax = 24 * time.Hour
	// documentStale is how much longer it is used while its server does not answer, or says that it cannot. Any other
	// answer that is not a valid document ends it at once.
	documentStale = 24 * time.Hour
	// documentPause is the least time between two fetches of one document. Until it is over, what a fetch has brought
	// counts, whatever that was. Failures and bad documents are not kept beyond it (section 5.2).
	documentPause = 10 * time.Second

	maxClientDocuments = 1000
)

// document is what is known of a client that is a URL: how it describes itself, or else what is wrong with that.
// Neither: nothing at its URL is a document about it.
type document struct {
	client *storage.Client
	wrong  string
	rules  string // by which it was read, see [Clients]
}

// newDocuments keeps the documents that were fetched, by URL.
func newDocuments() *fetches[document] {
	return newFetches[document](documentPause, maxClientDocuments, rate.NewLimiter(20, 100), newHostLimits(5, 20))
}

// documentError means that a client's document cannot be used: for everyone but its developer, the client is not found.
type documentError struct {
	reason string
	host   bool // no document of that host is taken
}

func (e *documentError) Error() string { return "client ID metadata document: " + e.reason }
func (e *documentError) Unwrap() error { return storage.ErrNotFound }

// Client is the client with this id, from storage or from its document. An error that is [storage.ErrNotFound] says
// that there is none; any other is a fault.
func (s *Clients) Client(ctx context.Context, id string) (*storage.Client, error) {
	if !s.Documents || !IsDocumentURL(id) || s.Store.Remembers(id) {
		return s.Store.Client(ctx, id)
	}
	if !s.Hosts.Admits(oauth.HostOf(id)) {
		return nil, &documentError{reason: "this server takes no clients from its host", host: true}
	}
	now := s.Now()
	d, current := s.documents.held(id, now)
	if !current || d.rules != s.rules {
		var err error
		if d, err = s.documents.again(ctx, id, now, s.fetchDocument); err != nil && d.client == nil {
			return nil, err
		}
	}
	switch {
	case d.client != nil:
		return d.client, nil
	case d.wrong != "":
		return nil, &documentError{reason: d.wrong}
	}
	return nil, &documentError{reason: "there is none at the client_id URL, or it could not be fetched"}
}

// Described reports whether a client is known by its document alone.
func Described(c *storage.Client) bool { return c.Revision == 0 && IsDocumentURL(c.ID) }

// IsDocumentURL reports whether a client_id is the URL of a document (section 3): https, with a host and a path,
// without user info, fragment and dot segments, in the one spelling in which it is fetched.
func IsDocumentURL(id string) bool {
	if len(id) > maxDocumentURL || !strings.HasPrefix(id, "https://") || oauth.CheckRedirectURI(id) != nil {
		return false
	}
	u, err := url.Parse(id)
	return err == nil && u.Path != "" && u.String() == id && !slices.ContainsFunc(strings.Split(u.Path, "/"), isDots)
}

func isDots(segment string) bool { return segment == "." || segment == ".." }

// fetchDocument fetches what is at the URL. An error leaves what was there before in use; an answer of its server does
// not.
func (s *Clients) fetchDocument(ctx context.Context, id string) (document, lifetime, error) {
	reply, err := s.Outbound.Get(ctx, id, "application/json", maxDocument)
	var c *storage.Client
	switch {
	case err == nil:
		c, err = s.readDocument(ctx, id, reply)
	case answered(reply.Status):
		err = &documentError{reason: err.Error()}
	}
	var bad *documentError
	var wrong *oauth.Error
	switch {
	case err == nil:
		fresh := FreshFor(reply.Header.Get("Cache-Control"))
		return document{client: c, rules: s.rules}, lifetime{fresh: fresh, usable: fresh + documentStale}, nil
	case errors.As(err, &wrong):
		s.tell(ctx, slog.LevelInfo, "a client ID metadata document cannot be used",
			"client", oauth.ShownURI(id), "error", err)
		return document{wrong: wrong.Description, rules: s.rules}, lifetime{fresh: documentPause, usable: documentPause}, nil
	case errors.As(err, &bad):
		s.tell(ctx, slog.LevelInfo, "there is no client ID metadata document at the client_id",
			"client", oauth.ShownURI(id), "error", err)
		return document{}, lifetime{}, nil
	}
	s.tell(ctx, slog.LevelWarn, "a client ID metadata document cannot be fetched",
		"client", oauth.ShownURI(id), "error", err)
	return document{}, lifetime{}, err
}

// answered reports whether a server has answered for itself, rather than said that it cannot at this moment, or nothing
// (0).
func answered(status int) bool {
	return status != 0 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// readDocument makes a client of a document (section 4). An oauth.Error says what is wrong with a document that is
// about this client; a documentError, that it is not about it: of what else may be at a URL, nobody learns anything.
// Any other is a fault.
func (s *Clients) readDocument(ctx context.Context, id string, reply outbound.Reply) (*storage.Client, error) {
	kind, _, err := mime.ParseMediaType(reply.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" &&
		!(strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")) {
		return nil, &documentError{reason: "its Content-Type is not application/json"}
	}
	members, err := Members(reply.Body)
	if err != nil {
		return nil, &documentError{reason: "it is " + err.Error()}
	}
	var named string
	if json.Unmarshal(members["client_id"], &named) != nil || named != id {
		return nil, &documentError{reason: "its client_id is not the URL that it is at"}
	}
	m, err := readMetadata(members)
	if err != nil {
		return nil, err
	}
	for _, secret := range []string{"client_secret", "client_secret_expires_at"} {
		if _, there := members[secret]; there {
			return nil, wrongMetadata("a document must not have %s", secret)
		}
	}
	if err := s.adapt(m, id); err != nil {
		return nil, err
	}
	c := &storage.Client{ID: id}
	if err := s.fill(ctx, c, m); err != nil {
		return nil, err
	}
	return c, s.Store.PublishKeys(ctx, &c.Client)
}

// adapt leaves out of a document what this server does not have for it, puts in its defaults, and refuses what a
// document must not hold.
func (s *Clients) adapt(m *clientMetadata, id string) error {
	if len(m.GrantTypes) > 0 {
		usable := oauth.Within(m.GrantTypes,
			[]string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantDeviceCode})
		if m.GrantTypes = oauth.Within(usable, s.GrantTypes); len(m.GrantTypes) == 0 {
			return wrongMetadata("grant_types has none that this server has for clients that are not registered")
		}
	}
	switch {
	case slices.Contains(m.ResponseTypes, "code"):
		m.ResponseTypes = []string{"code"}
	case len(m.GrantTypes) > 0 && !slices.Contains(m.GrantTypes, oauth.GrantAuthorizationCode):
		m.ResponseTypes = nil
	}
	if m.TokenEndpointAuthMethod == "" {
		m.TokenEndpointAuthMethod = oauth.AuthNone
		if m.JWKS != "" || m.JWKSURI != "" {
			m.TokenEndpointAuthMethod = oauth.AuthPrivateKeyJWT
		}
	}
	if m.TokenEndpointAuthMethod != oauth.AuthNone && m.TokenEndpointAuthMethod != oauth.AuthPrivateKeyJWT {
		return wrongMetadata("token_endpoint_auth_method must be %s or %s in a document", oauth.AuthNone,
			oauth.AuthPrivateKeyJWT)
	}
	if strings.TrimSpace(m.ClientName) == "" {
		m.ClientName, _, _ = strings.Cut(strings.TrimPrefix(id, "https://"), "/")
		m.ClientName = oauth.Cut(m.ClientName, oauth.MaxClientName)
	}
	return nil
}

// mayFetchFor reports whether this server may fetch from an address now, to judge what a client says of itself.
func (s *Clients) mayFetchFor(c *storage.Client, address string) bool {
	if Described(c) {
		return s.documents.hosts.allow(address, s.Now()) // the fetch of the document has counted already
	}
	return s.sectors.Allow()
}

// FreshFor is how long a reply with this Cache-Control is good (RFC 9111 section 5.2.2), within our bounds.
func FreshFor(cacheControl string) time.Duration {
	fresh := documentFresh
	for directive := range strings.SplitSeq(strings.ToLower(cacheControl), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "no-cache":
			return documentFreshMin
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				fresh = time.Duration(seconds) * time.Second
			}
		}
	}
	return min(max(fresh, documentFreshMin), documentFreshMax)
}

// Unknown is what the developer of a client is told that is not known, which err says of it.
func Unknown(id string, err error) *oauth.Error {
	var wrong *documentError
	switch {
	case errors.Is(err, storage.ErrDisabled):
		return oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleClientDisabled, "the client %q is disabled",
			oauth.Cut(oauth.ShownURI(id), 80)).About(oauth.Cut(oauth.ShownURI(id), 256), "", "")
	case errors.As(err, &wrong):
		rule := oauth.RuleClientDocument
		if wrong.host {
			rule = oauth.RuleClientDocumentHost
		}
		return oauth.Refuse(oauth.CodeInvalidClient, rule, "the client ID metadata document of %q cannot be used: %s",
			oauth.Cut(oauth.ShownURI(id), maxDocumentURL), wrong.reason)
	}
	return oauth.Refuse(oauth.CodeInvalidClient, oauth.RuleClientUnknown,
		"no client has the client_id %q: it must be one that this server gave, and a registration that is never used ends",
		oauth.Cut(oauth.ShownURI(id), 80)).About(oauth.Cut(oauth.ShownURI(id), 256), "", "")
}
