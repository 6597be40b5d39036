package server

import (
	"encoding/binary"
	"testing"
	"time"
)

// What is remembered of proofs is bounded; beyond that the oldest nonces are given up, so that no proof passes twice.
func TestProofsAreBounded(t *testing.T) {
	var p proofs
	now := time.UnixMilli(1_800_000_000_000)
	at := func(ago time.Duration) int64 { return now.Add(-ago).UnixMilli() }
	n := uint64(0)
	add := func(count int, nonce int64) {
		for range count {
			n++
			var id [16]byte
			binary.BigEndian.PutUint64(id[:], n)
			p.remember(now, nonce, id)
		}
	}
	add(mostProofs/2, at(time.Minute))
	add(mostProofs/2, at(30*time.Second))
	if p.floor != 0 || p.count != mostProofs {
		t.Fatalf("floor %d, %d proofs", p.floor, p.count)
	}
	add(1, at(0))
	if p.floor != at(time.Minute)+1 || p.count != mostProofs/2+1 {
		t.Errorf("one too many: floor %d, %d proofs", p.floor, p.count)
	}
	add(mostProofs, at(0))
	if p.floor != at(0)+1 || p.count > mostProofs {
		t.Errorf("a flood under one nonce: floor %d, %d proofs", p.floor, p.count)
	}
	now = now.Add(nonceLife)
	add(1, at(0))
	if p.count != 1 || len(p.used) != 1 {
		t.Errorf("after the life of a nonce: %d proofs", p.count)
	}
}
