package server

import (
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Nonces of DPoP proofs (RFC 9449 section 8) are sealed times: any replica takes those of any other, and none is
// stored.
const (
	nonceStep = 30 * time.Second // a new one so often
	nonceLife = 5 * time.Minute
)

// mostProofs is how many proofs a replica remembers: some 10 MB.
const mostProofs = 100_000

// proofs remembers which proofs were used, by their nonces. When they become too many, those of the oldest nonce are
// forgotten and that nonce, with all earlier ones, is no longer accepted: clients are told to use a newer one, and no
// proof is accepted twice.
type proofs struct {
	*issuer

	mu    sync.Mutex // owns what follows
	used  map[int64]map[[16]byte]struct{}
	count int
	floor int64 // no nonce before this is taken

	at    int64    // of the nonce that was made last
	nonce []string // it, as the value of a header, which responses share
}

// proofNonce is the present nonce, as the value of a header.
func (p *proofs) proofNonce() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := max(p.now().Truncate(nonceStep).UnixMilli(), p.floor)
	if p.nonce != nil && p.at == at {
		return p.nonce, nil
	}
	nonce, err := p.store.SealFixed(storage.SealNonce, strconv.AppendInt(nil, at, 10))
	if err != nil {
		return nil, err
	}
	p.at, p.nonce = at, []string{nonce}
	return p.nonce, nil
}

// useProof checks the nonce of a proof that is right otherwise, and that the proof was not used before.
func (p *proofs) useProof(nonce, thumbprint, id string) error {
	again := oauth.Refuse(oauth.CodeUseDPoPNonce, oauth.RuleProofNonce,
		"use the nonce of the header DPoP-Nonce in the DPoP proof")
	plain, err := p.store.Open(storage.SealNonce, nonce)
	if errors.Is(err, storage.ErrNotFound) {
		return again
	} else if err != nil {
		return err
	}
	at, err := strconv.ParseInt(string(plain), 10, 64)
	if err != nil {
		return err // we sealed it
	}
	now := p.now()
	if made := time.UnixMilli(at); now.Sub(made) >= nonceLife || made.Sub(now) > proofAhead {
		return again
	}
	sum := sha256.Sum256([]byte(thumbprint + "." + id))
	p.mu.Lock()
	defer p.mu.Unlock()
	if at < p.floor {
		return again
	}
	if _, used := p.used[at][[16]byte(sum[:16])]; used {
		return badProof(oauth.RuleProofUsed, "the DPoP proof was used before")
	}
	p.remember(now, at, [16]byte(sum[:16]))
	return nil
}

// remember makes room first: for proofs whose nonce has expired, and if need be by giving up the oldest nonce.
func (p *proofs) remember(now time.Time, at int64, proof [16]byte) {
	for made := range p.used {
		if now.Sub(time.UnixMilli(made)) >= nonceLife {
			p.drop(made)
		}
	}
	for p.count >= mostProofs {
		oldest := slices.Min(slices.Collect(maps.Keys(p.used)))
		p.drop(oldest)
		p.floor = max(p.floor, oldest+1)
	}
	if p.used == nil {
		p.used = make(map[int64]map[[16]byte]struct{})
	}
	if p.used[at] == nil {
		p.used[at] = make(map[[16]byte]struct{})
	}
	p.used[at][proof] = struct{}{}
	p.count++
}

func (p *proofs) drop(made int64) {
	p.count -= len(p.used[made])
	delete(p.used, made)
}
