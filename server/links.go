package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/warifu/warifu/storage"
)

// A link lets somebody in who has no way to sign in yet, or not any more: from an invitation, or from a mail that they
// asked for on /forgot. It is a sealed string, so making one writes nothing but its entry in the audit log. It names
// the revision of what its user has to sign in with, and the transaction that uses it compares and moves that: so a
// link works once, and no longer when the user has signed in with a new factor, or has got another link and used it. It
// also ends with the user's term, and when the user has another e-mail address: what went to the wrong one opens
// nothing once that is put right. Looking at it spends nothing: mail scanners do that.

// Kinds of links.
const (
	LinkInvitation = "invitation"
	LinkReset      = "reset"
)

const (
	// LinkLife is how long a link works unless an operator says otherwise.
	LinkLife = 15 * time.Minute
	// MostLinkLife is the longest that an operator may say.
	MostLinkLife = 7 * 24 * time.Hour
)

// ErrDisabled means that an operator, or a connector, has disabled the user.
var ErrDisabled = errors.New("the user is disabled")

// link is what a link holds, sealed.
type link struct {
	Kind    string `json:"k"`
	User    string `json:"u"`
	Term    int64  `json:"t"`
	Factors int64  `json:"f"` // the revision of the user's factors
	Email   string `json:"m"` // hash of the user's e-mail address
	Expires int64  `json:"e"` // Unix milliseconds
}

// MakeLink makes the address of a page on which whoever has it takes over a managed account: one of the kinds above,
// valid for as long as is said. The audit log says so, by the actor of ctx. It returns [storage.ErrNotManaged] or
// [ErrDisabled] for a user who can have none.
func (s *Server) MakeLink(ctx context.Context, a *storage.Account, kind string, valid time.Duration) (string, error) {
	address, err := s.link(a, kind, valid)
	if err != nil {
		return "", err
	}
	return address, s.store.Record(ctx, linkMade(a.User, kind, valid))
}

func (s *Server) link(a *storage.Account, kind string, valid time.Duration) (string, error) {
	switch {
	case !a.User.Managed:
		return "", storage.ErrNotManaged
	case !a.User.Active():
		return "", ErrDisabled
	case valid <= 0 || valid > MostLinkLife:
		return "", fmt.Errorf("a link is valid for more than nothing and at most %s, not for %s", MostLinkLife, valid)
	}
	sealed, err := s.seal(storage.SealLink, link{Kind: kind, User: a.User.ID, Term: a.User.Term,
		Factors: a.Factors.Revision, Email: emailMark(a.User), Expires: s.now().Add(valid).UnixMilli()})
	if err != nil {
		return "", err
	}
	return s.endpoint(pathWelcome) + "?" + url.Values{fieldLink: {sealed}}.Encode(), nil
}

// emailMark tells the e-mail address of a user from others.
func emailMark(u *storage.User) string { return hashOf(storage.NormalLogin(u.Email)) }

// linkMade is the entry of the audit log for a link.
func linkMade(u *storage.User, kind string, valid time.Duration) storage.AuditEntry {
	action := storage.AuditUserInvited
	if kind == LinkReset {
		action = storage.AuditResetAsked
	}
	return storage.AuditEntry{Action: action, User: u.ID,
		Detail: "user " + u.ID + ", by a link that is valid for " + valid.String()}
}

// fieldLink is the sealed link, in its address and in the form.
const fieldLink = "link"
