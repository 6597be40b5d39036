package storage

import (
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// There are more grants than records of any other kind, so one is stored in few bytes: what its key says is not
// repeated, nor is its session, which has a note of it, and times are numbers. Versions before this form stored a
// [Grant] as it is, in JSON, which is still read. A record of this form begins with a character that is no JSON, so
// such a version does not mistake it for an empty grant.

// compactGrant begins a record of this form.
const compactGrant = "1"

// grantRecord is what follows. Scopes are as in RFC 6749 section 3.3.
type grantRecord struct {
	UserID    string          `json:"u,omitempty"`
	Scopes    string          `json:"s,omitempty"`
	Claims    json.RawMessage `json:"c,omitempty"`
	CreatedAt int64           `json:"n,omitempty"` // Unix milliseconds
	AuthTime  int64           `json:"a,omitempty"` // milliseconds before CreatedAt
	ExpiresAt int64           `json:"x,omitempty"` // milliseconds after CreatedAt
	Term      int64           `json:"t,omitempty"`
	Dead      string          `json:"d,omitempty"`
}

func encodeGrant(g *Grant) string {
	created := g.CreatedAt.UnixMilli()
	return compactGrant + encode(grantRecord{
		UserID: g.UserID, Scopes: strings.Join(g.Scopes, " "), Claims: g.Claims,
		CreatedAt: created, AuthTime: created - g.AuthTime.UnixMilli(), ExpiresAt: g.ExpiresAt.UnixMilli() - created,
		Term: g.Term,
	})
}

// tombstone is what is stored in the place of a grant that has died.
func tombstone(why string) string { return compactGrant + encode(grantRecord{Dead: why}) }

// decodeGrant reads a grant of either form. A tombstone is [ErrNotFound].
func decodeGrant(kv *mvccpb.KeyValue) (*Grant, error) {
	record, compact := strings.CutPrefix(string(kv.Value), compactGrant)
	if !compact {
		g, err := decode[Grant]("grant", kv.Value)
		if err == nil && g.Dead != "" {
			err = ErrNotFound
		}
		return g, err
	}
	r, err := decode[grantRecord]("grant", []byte(record))
	if err != nil {
		return nil, err
	}
	if r.Dead != "" {
		return nil, ErrNotFound
	}
	return &Grant{
		ID: lastSegment(kv.Key), ClientID: clientOfKey(kv.Key), UserID: r.UserID, Scopes: strings.Fields(r.Scopes),
		Claims:    r.Claims,
		CreatedAt: time.UnixMilli(r.CreatedAt).UTC(), AuthTime: time.UnixMilli(r.CreatedAt - r.AuthTime).UTC(),
		ExpiresAt: time.UnixMilli(r.CreatedAt + r.ExpiresAt).UTC(), Term: r.Term,
	}, nil
}

// clientOfKey is the client in grants/<client>/<grant>, and in keys of the same form.
func clientOfKey(k []byte) string {
	_, rest, _ := strings.Cut(string(k), "/")
	segment, _, _ := strings.Cut(rest, "/")
	id, err := url.PathUnescape(segment)
	if err != nil {
		return ""
	}
	return id
}
