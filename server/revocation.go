package server

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// revocation is the revocation endpoint (RFC 7009). It ends a grant by one of its tokens, access or refresh, and with
// it everything that was issued from it. A client's own token and one that it got in a token exchange end alone. A
// token that is no longer valid is revoked already.
func (s *Server) revocation(w http.ResponseWriter, r *http.Request) error {
	q, err := s.spentFirst(r, pathRevoke)
	if err != nil {
		return err
	}
	sent, err := decode[oidc.RevocationRequest](q.form)
	if err != nil {
		return err
	}
	if sent.Token == "" {
		return missing("token")
	}
	if err := s.revoke(r, q.client, sent.Token); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) revoke(r *http.Request, c *client, sent string) error {
	owner, grantID := "", ""
	var alone *accessClaims
	var err error
	if strings.HasPrefix(sent, string(storage.SealRefresh)) {
		var token refreshToken
		err = s.open(storage.SealRefresh, sent, &token)
		owner, grantID = token.Client, token.Grant
	} else {
		var claims accessClaims
		claims, err = s.verifyAccess(sent)
		owner, grantID = claims.ClientID, claims.grant()
		if claims.own() || claims.Origin != "" {
			alone = &claims
		}
	}
	switch {
	case err != nil && !verdict(err):
		return fmt.Errorf("revoke: %w", err)
	case err != nil: // nothing that could be revoked (RFC 7009 section 2.2)
		return nil
	case owner != c.ID:
		return invalidGrant(oauth.RuleTokenOtherClient, "the token was issued to another client")
	case alone != nil:
		return s.revokeAlone(r.Context(), c, *alone)
	}
	if _, err := s.store.KillGrant(r.Context(), owner, grantID, storage.AuditEntry{
		Actor: storage.ClientActor(owner), Action: storage.AuditGrantRevoked, Reason: "revoked by the client"}); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}
