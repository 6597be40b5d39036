package storage

import (
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A refresh chain is one key. Its version is the generation of the refresh token that is valid; its value, a link, says
// since when. That is all that a refresh token which works once needs. Of a chain that came from another etcd, the link
// says how many generations it had there, see moved.go.
//
// With a reuse interval, a token that was used is still taken for a while after. So the chain has to remember when each
// of its tokens was used, as far back as the interval: these steps are the value's Before. A transaction cannot read
// what it replaces, and a refresh reads nothing before it; so the steps travel with the newest refresh token, sealed,
// and come back with it: the one token with which the chain can move on is the one that knows all of them.
//
// What is remembered has a bound, however fast somebody refreshes: a token that was used while the next one was, in the
// same second, counts as used when that one was. So there is a step for each second of the interval at most, and a
// replay is noticed at most a second late. When a token was used is what the clock said of the replica that moved the
// chain; the interval is longer or shorter by as much as the clocks of replicas differ.

// Step says when a refresh chain reached a generation. Steps of one second are one.
type Step struct {
	Generation int64 `json:"g"` // the first of the second
	At         int64 `json:"t"` // of the last, in Unix milliseconds
}

// link is the value of a chain key.
type link struct {
	At     int64  `json:"at"` // when the chain reached its present generation, in Unix milliseconds
	Before []Step `json:"before,omitempty"`
	Base   int64  `json:"base,omitempty"` // is added to the version; 0 of a chain that has not moved
}

// encode is the record of a link. Most of them are a time alone, which every refresh writes: without package json.
func (l link) encode() string {
	if len(l.Before) > 0 || l.Base != 0 {
		return encode(l)
	}
	return string(append(strconv.AppendInt(append(make([]byte, 0, 32), `{"at":`...), l.At, 10), '}'))
}

// chainState is a chain as it was read.
type chainState struct {
	link
	generation int64
	created    int64 // revision
}

func decodeChain(kv *mvccpb.KeyValue) (chainState, error) {
	l, err := decode[link]("chain", kv.Value)
	if err != nil {
		return chainState{}, err
	}
	return chainState{*l, kv.Version + l.Base, kv.CreateRevision}, nil
}

// next is the link by which a chain moves on from ref.
func (ref GrantRef) next(now time.Time, reuse time.Duration) link {
	next := link{At: now.UnixMilli(), Base: ref.Base}
	if reuse <= 0 {
		return next
	}
	for _, s := range append(slices.Clip(ref.Before), Step{ref.Generation, ref.At.UnixMilli()}) {
		s.At = min(s.At, next.At) // the clock of another replica may be ahead
		last := len(next.Before) - 1
		switch {
		case next.At-s.At > reuse.Milliseconds(): // nobody will ask
		case last >= 0 && s.At/1000 <= next.Before[last].At/1000:
			next.Before[last].At = max(next.Before[last].At, s.At)
		default:
			next.Before = append(next.Before, s)
		}
	}
	return next
}

// rotation is the step that made the link, to a generation. move is that with which the chain came; 0 for none.
func (l link) rotation(generation, move int64) Rotation {
	return Rotation{Generation: generation, At: time.UnixMilli(l.At), Before: l.Before, Base: l.Base, Move: move}
}

// usedWithin reports whether the refresh token of a generation, which is not the newest, was used within a reuse
// interval that ends now.
func (l link) usedWithin(reuse time.Duration, now time.Time, generation, newest int64) bool {
	if reuse <= 0 {
		return false
	}
	used, step := l.At, generation+1 // what using it led to
	if step < newest {
		i, exact := slices.BinarySearchFunc(l.Before, step, func(s Step, step int64) int { return int(s.Generation - step) })
		if !exact {
			i-- // to the second that it belongs to
		}
		if i < 0 {
			return false
		}
		used = l.Before[i].At
	}
	return now.UnixMilli()-used <= reuse.Milliseconds()
}
