package storage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Resealing says how far this replica has come in moving everything to the newest encryption key.
type Resealing struct {
	Phase string // one of the constants, or empty when it does nothing
	// Waiting are the replicas that do not have the newest key first in their list, or do not seal under it yet.
	Waiting  []string
	Resealed int    // records, in this run
	Fault    string // why the last run has failed
}

// Phases of [Resealing].
const (
	ResealWaits    = "waiting"   // for replicas
	ResealGoes     = "resealing" // records are moved
	ResealVerifies = "verifying" // all are looked at once more
)

// Encryption is what is known of the encryption keys.
type Encryption struct {
	// Keys that this replica has, newest first.
	Keys []EncryptionKey
	// Complete is when it was found that nothing is sealed under another key than the one that seals; zero: not yet.
	Complete time.Time
	// Own is the file of the keys, if this program keeps it.
	Own string
	// Former are keys that have sealed before: backups that were made until then need them.
	Former []FormerEncryptionKey
	Resealing
}

// EncryptionKey is a key, by its fingerprint.
type EncryptionKey struct {
	Fingerprint string
	Seals       bool
	Since       time.Time // when it began to seal; zero if it does not
}

// FormerEncryptionKey is a key under which secrets were sealed.
type FormerEncryptionKey struct {
	Fingerprint string
	Until       time.Time
}

// Encryption says which encryption keys there are, and how far resealing has come.
func (s *Store) Encryption(ctx context.Context) (*Encryption, error) {
	mark, err := s.completed(ctx, completeSeals)
	if err != nil {
		return nil, fmt.Errorf("read encryption keys: %w", err)
	}
	k, t := s.kek(), s.currentTurn()
	out := &Encryption{Own: s.ownKey()}
	for _, name := range k.fingerprints() {
		at := EncryptionKey{Fingerprint: name, Seals: name == k.id()}
		if at.Seals {
			at.Since = t.Since
		}
		out.Keys = append(out.Keys, at)
	}
	for _, f := range t.Before {
		out.Former = append(out.Former, FormerEncryptionKey{Fingerprint: f.KEK, Until: f.Until})
	}
	if mark != nil && mark.KEK == k.id() && out.Keys[0].Seals {
		out.Complete = mark.At
	}
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	out.Resealing = s.sealing.progress
	out.Waiting = slices.Clone(out.Waiting)
	return out, nil
}

// askedAgain is how soon after a rotation another one has to be wanted with some emphasis.
const askedAgain = time.Hour

// ErrNoNewKey means that the newest key seals everything already, and that this program does not make the next one.
var ErrNoNewKey = errors.New("everything is sealed under the newest encryption key already")

// RotateEncryption begins to replace the encryption key: with a new one, if this program keeps the key itself, or with
// the one that was put in front of the list. [Store.KeepSealed] does the rest. Whoever asks again soon after one has
// ended gets no other key, unless it is wanted now: that is somebody who has not heard how it ended.
func (s *Store) RotateEncryption(ctx context.Context, now bool) error {
	s.sealing.list.Lock()
	defer s.sealing.list.Unlock()
	at, err := s.Encryption(ctx)
	if err != nil {
		return err
	}
	defer s.sealing.signal()
	switch {
	case at.Complete.IsZero():
		return nil // it is under way
	case !now && len(at.Former) > 0 && s.now().Sub(at.Complete) < askedAgain:
		return nil
	case at.Own == "":
		return ErrNoNewKey
	}
	if err := s.Record(ctx, AuditEntry{Action: AuditEncryptionAsked}); err != nil {
		return err
	}
	next, err := renewKeyFile(at.Own)
	if err != nil {
		return err
	}
	return s.setKEK(ctx, next)
}

// KeepSealed keeps everything sealed under the newest encryption key that all replicas have, until ctx ends.
func (s *Store) KeepSealed(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for failed := false; ; {
		err := s.Reseal(ctx)
		if err != nil && ctx.Err() == nil && !failed {
			s.log.Error("cannot seal secrets under the newest encryption key; trying again", "error", err)
		}
		failed = err != nil
		wait := tick.C
		s.sealing.mu.Lock()
		waits := s.sealing.progress.Phase == ResealWaits && !failed
		s.sealing.mu.Unlock()
		if waits {
			wait = time.After(2 * time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
		case <-s.sealing.wake:
			if err := s.announceAgain(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("others hear a little later of the encryption key", "error", err)
			}
		}
	}
}

// Reseal gives the newest encryption key its turn once every replica has it, moves everything that is sealed under an
// older one to it, and makes sure that nothing is left, so that the older ones can go. It may be called at any time, by
// any number of replicas, and goes on where it or another has stopped. What has to wait is left to the next call. When
// all is under the newest key already, it costs one read.
func (s *Store) Reseal(ctx context.Context) error {
	s.sealing.run.Lock()
	defer s.sealing.run.Unlock()
	err := s.reseal(ctx)
	if err != nil {
		err = fmt.Errorf("reseal: %w", err)
	}
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	if s.sealing.progress.Phase != ResealWaits || err != nil {
		s.sealing.progress.Phase = ""
	}
	if s.sealing.progress.Fault = ""; err != nil {
		s.sealing.progress.Fault = err.Error()
	}
	return err
}

func (s *Store) phase(phase string, waiting []string) {
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	if p := &s.sealing.progress; phase != p.Phase && phase == ResealGoes {
		p.Resealed = 0
	}
	s.sealing.progress.Phase, s.sealing.progress.Waiting = phase, waiting
}

func (s *Store) reseal(ctx context.Context) error {
	mark, err := s.completed(ctx, completeSeals)
	if err != nil {
		return err
	}
	newest := s.kek().fingerprints()[0]
	if mark != nil && mark.KEK == newest && s.kek().id() == newest {
		s.phase("", nil)
		return s.retire()
	}
	if s.kek().id() != newest {
		waiting, err := s.turnKEK(ctx)
		if err != nil {
			return err
		}
		if s.kek().id() != newest {
			s.phase(ResealWaits, waiting)
			return nil
		}
		if err := s.announceAgain(ctx); err != nil {
			return err
		}
	}
	replicas, err := s.Replicas(ctx)
	if err != nil {
		return err
	}
	var others []string
	for _, r := range replicas {
		if !r.Self && r.SealsUnder != newest {
			others = append(others, r.Name)
		}
	}
	if len(others) > 0 {
		s.phase(ResealWaits, others)
		return nil
	}
	for range 3 {
		if err := s.resealAll(ctx); err != nil {
			return err
		}
		s.phase(ResealVerifies, nil)
		if left := s.landing(); left > 0 {
			Pause(ctx, left)
		}
		counts, err := s.sealedUnder(ctx)
		if err != nil {
			return err
		}
		delete(counts, newest)
		if len(counts) > 0 {
			continue // something has changed meanwhile
		}
		if err := s.complete(ctx, completeSeals, complete{KEK: newest}); err != nil {
			return err
		}
		s.phase("", nil)
		return s.retire()
	}
	return nil
}

// landing is how long it may still take until everything that was sealed under the key before is written. A store that
// has opened since then goes by the turn: other replicas may have something on its way.
func (s *Store) landing() time.Duration {
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	x := &s.sealing
	switch {
	case !x.turned.IsZero():
		return x.inFlight - time.Since(x.turned)
	case x.turn == nil || len(x.turn.Before) == 0:
		return 0
	}
	return min(x.inFlight-s.now().Sub(x.turn.Since), x.inFlight)
}

// retire takes keys that nothing is sealed under out of the file that this program keeps.
func (s *Store) retire() error {
	s.sealing.list.Lock()
	defer s.sealing.list.Unlock()
	own := s.ownKey()
	if own == "" || len(s.kek().ids) == 1 {
		return nil
	}
	if now, err := ReadKEK(own); err != nil || now.fingerprints()[0] != s.kek().id() {
		return err // there is a newer one already
	}
	kek, retired, err := retireKeys(own)
	if err != nil {
		return err
	}
	s.keks.Store(kek)
	s.log.Info("everything is sealed under the new encryption key; older ones are needed for older backups only",
		"key", kek.id(), "older", strings.Join(retired, ", "))
	return nil
}

// resealAll moves every record to the key that seals. Those that change meanwhile are left.
func (s *Store) resealAll(ctx context.Context) error {
	s.phase(ResealGoes, nil)
	for _, kind := range sealedKinds() {
		err := s.each(ctx, under(kind), func(kv *mvccpb.KeyValue) error {
			value, err := s.kek().resealed(under(kind), kv.Value)
			if err == nil && value != "" {
				_, err = s.replace(ctx, string(kv.Key), kv.ModRevision,
					clientv3.OpPut(string(kv.Key), value, clientv3.WithLease(clientv3.LeaseID(kv.Lease))), nil)
				s.sealing.mu.Lock()
				s.sealing.progress.Resealed++
				s.sealing.mu.Unlock()
			}
			if ignore(err, ErrConflict) != nil {
				return fmt.Errorf("%s: %w", kv.Key, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sealedUnder counts what is sealed, by the fingerprint of the key.
func (s *Store) sealedUnder(ctx context.Context) (map[string]int, error) {
	counts := make(map[string]int)
	for _, kind := range sealedKinds() {
		err := s.each(ctx, under(kind), func(kv *mvccpb.KeyValue) error {
			_, err := eachSealed(under(kind), kv.Value, func(_ string, sealed *[]byte) error {
				if len(*sealed) >= kekIDLen {
					counts[hex.EncodeToString((*sealed)[:kekIDLen])]++
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("%s: %w", kv.Key, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// sealedKinds are the kinds of records with something that is sealed.
func sealedKinds() []string { return []string{"keys", "clients", "deliveries", "upstreams", "factors"} }

// resealed is a record of such a kind with its secrets under the key that seals, or "" if they are already.
func (k *KEK) resealed(prefix string, value []byte) (string, error) {
	changed := false
	record, err := eachSealed(prefix, value, func(purpose string, sealed *[]byte) error {
		if len(*sealed) == 0 || k.current(*sealed) {
			return nil
		}
		again, err := k.reseal(purpose, *sealed)
		if err != nil {
			return err
		}
		*sealed, changed = again, true
		return nil
	})
	if err != nil || !changed {
		return "", err
	}
	return encode(record), nil
}

// eachSealed calls do with everything that is sealed in a record of one of [sealedKinds], and returns the record. All
// that is ever sealed under the encryption key is found here.
func eachSealed(prefix string, value []byte, do func(purpose string, sealed *[]byte) error) (any, error) {
	var record any
	switch prefix {
	case under("keys"):
		k, err := decode[Key]("key", value)
		if err != nil {
			return nil, err
		}
		if err := do(k.purpose(), &k.Sealed); err != nil {
			return nil, err
		}
		record = k
	case under("clients"):
		c, err := decode[Client]("client", value)
		if err != nil {
			return nil, err
		}
		for i := range c.Secrets {
			if err := do(secretPurpose(c.ID, c.Secrets[i].ID), &c.Secrets[i].Sealed); err != nil {
				return nil, err
			}
		}
		record = c
	case under("upstreams"):
		u, err := decode[Upstream]("upstream", value)
		if err != nil {
			return nil, err
		}
		if err := do(u.purpose(), &u.Sealed); err != nil {
			return nil, err
		}
		record = u
	case under("factors"):
		f, err := decode[factorsRecord]("factors", value)
		if err != nil {
			return nil, err
		}
		if err := do(factorsPurpose(f.UserID), &f.Sealed); err != nil {
			return nil, err
		}
		record = f
	case under("deliveries"):
		d, err := decode[Delivery]("delivery", value)
		if err != nil {
			return nil, err
		}
		if err := do(envPurpose(d), &d.Sealed); err != nil {
			return nil, err
		}
		record = d
	}
	return record, nil
}
