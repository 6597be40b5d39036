package storage_test

import (
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// BenchmarkRefresh is what storage does for a refresh, in the order in which the server asks for it: it opens the
// token, looks the client up, moves the chain, and seals the next token.
func BenchmarkRefresh(b *testing.B) {
	etcd := storagetest.New(b)
	s := etcd.Store()
	if err := s.RotateKeys(b.Context(), true, storage.KeySchedule{Use: storage.UseSeal}); err != nil {
		b.Fatal(err)
	}
	c, u := registered(b, s)
	ends := time.Now().Add(time.Hour)
	g := newGrant(c, u)
	if _, err := s.CreateGrant(b.Context(), g, ends, on(c, u)); err != nil {
		b.Fatal(err)
	}
	plain := make([]byte, 400)
	token, err := s.SealFixed(storage.SealRefresh, plain)
	if err != nil {
		b.Fatal(err)
	}
	ref := storage.GrantRef{ClientID: c.ID, GrantID: g.ID, UserID: u.ID, Generation: 1}
	b.Run("look-up", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Client(b.Context(), c.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Open(storage.SealRefresh, token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.SealFixed(storage.SealRefresh, plain); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rotate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, err := s.RotateGrant(b.Context(), ref, ends, 0, on(c, u))
			if err != nil {
				b.Fatal(err)
			}
			ref.Generation = r.Generation
		}
	})
}
