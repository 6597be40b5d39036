package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// Key is a signing or sealing key, without anything secret.
type Key struct {
	Use   string    `json:"use" doc:"RS256, ES256, EdDSA or PS256: signs; seal: seals codes, refresh tokens and cookies; pairwise: makes pairwise subjects."`
	KID   string    `json:"kid" doc:"Its name: of a signing key, the kid in tokens and in the JWK Set."`
	State string    `json:"state" enum:"next,active,verifying,compromised" doc:"next: published, and does not sign yet. verifying: verifies what it has signed. compromised: ended."`
	Since time.Time `json:"since,omitzero" doc:"When the state began; of next, when the key was published. Left out if that is not known."`
	Until time.Time `json:"until,omitzero" doc:"When the state ends on schedule. Left out if it does not."`
}

// KeysRotated is the reply of a rotation of keys.
type KeysRotated struct {
	Keys []KeyRotated `json:"keys" nullable:"false"`
}

// KeyRotated is the rotation of the keys of one use.
type KeyRotated struct {
	Use          string    `json:"use"`
	KID          string    `json:"kid" doc:"The key that signs or seals, starting at the time in from."`
	From         time.Time `json:"from"`
	Previous     []string  `json:"previous" nullable:"false" doc:"The keys before it: they verify what they have signed until the time in until, or have ended, if they are compromised."`
	Until        time.Time `json:"until"`
	Compromised  bool      `json:"compromised" doc:"Whether the previous keys have ended."`
	Consequences []string  `json:"consequences" nullable:"false" doc:"What follows for users, apps and resource servers."`
}

// AllKeys stands for every use whose keys are rotated.
const AllKeys = "all"

type rotateKeysInput struct {
	Use  string `path:"use" enum:"RS256,ES256,EdDSA,PS256,seal,pairwise,all" doc:"Which keys to replace. pairwise is refused: its key is never replaced."`
	Body struct {
		Now         bool `json:"now,omitempty" doc:"The next key signs now, even if it has not been published for long."`
		Compromised bool `json:"compromised,omitempty" doc:"All keys of the use end now, and a new one signs."`
	}
}

func (a *operations) registerKeys(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: "/v1/keys",
		Summary: "List signing and sealing keys with their state, never what is secret",
		Tags:    []string{"keys"}, Errors: []int{503},
	}, a.listKeys)
	huma.Register(api, huma.Operation{
		OperationID: "rotate-keys", Method: http.MethodPost, Path: "/v1/keys/{use}/rotate",
		Summary: "Replace the key that signs or seals",
		Description: "The next key signs once it has been published for an hour, and the previous one verifies " +
			"what it has signed.",
		Tags: []string{"keys"}, Errors: []int{400, 409, 422, 503},
	}, a.rotateKeys)
}

func (a *operations) listKeys(ctx context.Context, _ *struct{}) (*reply[[]Key], error) {
	views, err := a.Store.KeyViews(ctx, a.KeySchedules()...)
	if err != nil {
		return nil, a.failed(ctx, "keys", err)
	}
	out := make([]Key, 0, len(views))
	for _, v := range views {
		out = append(out, Key{Use: v.Use, KID: v.Name, State: string(v.State), Since: v.Since.UTC(), Until: v.Until.UTC()})
	}
	return &reply[[]Key]{out}, nil
}

func (a *operations) rotateKeys(ctx context.Context, in *rotateKeysInput) (*reply[KeysRotated], error) {
	turn := storage.TurnPublished
	switch {
	case in.Body.Now && in.Body.Compromised:
		return nil, problem(http.StatusUnprocessableEntity, codeInvalidRequest,
			"now and compromised exclude each other: a compromised key is replaced at once in any case.",
			"Leave out one of them.")
	case in.Body.Compromised:
		turn = storage.TurnCompromised
	case in.Body.Now:
		turn = storage.TurnNow
	}
	out := KeysRotated{Keys: []KeyRotated{}}
	for _, schedule := range a.KeySchedules() {
		if in.Use != schedule.Use && (in.Use != AllKeys || schedule.Use == storage.UsePairwise) {
			continue
		}
		if in.Use == AllKeys && schedule.OnDemand && len(a.Store.Keys(schedule.Use)) == 0 {
			continue
		}
		rotated, err := a.Store.RotateKey(ctx, schedule, turn)
		if err != nil {
			return nil, a.keyFailed(ctx, schedule.Use, out.Keys, err)
		}
		out.Keys = append(out.Keys, KeyRotated{
			Use: rotated.Use, KID: rotated.Key, From: rotated.From,
			Previous: append([]string{}, rotated.Previous...), Until: rotated.Until.UTC(),
			Compromised: turn == storage.TurnCompromised, Consequences: keyConsequences(rotated, turn),
		})
	}
	return &reply[KeysRotated]{out}, nil
}

// keyFailed is the reply when the keys of a use could not be rotated, after those of others were.
func (a *operations) keyFailed(ctx context.Context, use string, done []KeyRotated, err error) error {
	if errors.Is(err, storage.ErrPermanent) {
		return problem(http.StatusConflict, codePermanentKey,
			"The key of pairwise subjects is never replaced: apps know their users by these subjects, and would "+
				"take everybody for "+
				"somebody else. It is never published, and signs and opens nothing.",
			"To seal it under another encryption key, put that one first in encryptionKeyFiles.")
	}
	reply := a.failed(ctx, use+" keys", err)
	var p *Problem
	if !errors.As(reply, &p) {
		return reply
	}
	told := *p
	switch {
	case errors.Is(err, storage.ErrKeysEnded):
		told.Detail = "Storage is full: of " + use +
			", the keys that had signed have ended, and the next key, which was ready, now signs."
		told.Remedy = "Make room, and run this again: then the next key ends as well, and what has ended does not come " +
			"back from a backup."
	case errors.Is(err, storage.ErrFull):
		told.Detail = "Storage is full: the " + use + " keys are as they were."
		told.Remedy = "Make room, and try again; the server's log says more."
	}
	var uses []string
	for _, d := range done {
		uses = append(uses, d.Use)
	}
	if len(uses) > 0 {
		told.Detail += " Rotated before that: " + strings.Join(uses, ", ") + "."
	}
	return &told
}

// keyConsequences is what follows from a rotation, in words.
func keyConsequences(r storage.KeyRotation, turn storage.KeyTurn) []string {
	seals := r.Use == storage.UseSeal
	switch {
	case turn == storage.TurnCompromised && seals:
		return SealEnds()
	case turn == storage.TurnCompromised:
		return SigningEnds(r.Use)
	case turn == storage.TurnNow && !seals && r.From.Sub(r.Published) < publishedLongEnough:
		return []string{fmt.Sprintf("the key was published %s before it signs: whoever has cached the JWK Set (%s) and does "+
			"not fetch it again for an "+
			"unknown kid refuses what is signed until then", r.From.Sub(r.Published).Round(time.Second), jwksCached)}
	case seals:
		return []string{"what the previous key has sealed stays valid: no one has to sign in again"}
	}
	return []string{"what the previous key has signed stays valid: it is still in the JWK Set"}
}

const (
	// publishedLongEnough is how long every verifier that honours the JWK Set's caching has certainly seen a key.
	publishedLongEnough = time.Hour
	jwksCached          = "5 minutes, and some verifiers keep it for longer"
)

// SigningEnds is what ends with the keys of an algorithm.
func SigningEnds(use string) []string {
	access := "access tokens"
	if use != storage.UseES256 {
		access += " whose accessTokenAlg is " + use
	}
	return []string{
		"no replica accepts what the previous keys have signed (" + access + ", ID tokens, id_token_hint, logout tokens, " +
			"signed replies), as soon as it has heard of it, within seconds",
		"resource servers and apps that verify by themselves accept it until they fetch the JWK Set again: it may be " +
			"cached for " + jwksCached,
		"apps need new " + access + ": refresh tokens, codes and sign-ins stay valid",
	}
}

// SealEnds is what ends with the sealing keys.
func SealEnds() []string {
	return []string{
		"everything that is sealed ends: authorization codes, refresh tokens, opaque access tokens, device codes, pushed " +
			"requests, pending sign-ins and logouts, sessions in browsers, nonces of DPoP proofs",
		"every user has to sign in again, and every app has to send its users through sign-in again",
		"consents stay, and access tokens that are JWTs are valid until they expire (end those at once as well: " +
			"warifu keys rotate ES256 --compromised)",
	}
}
