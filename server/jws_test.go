package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/warifu/warifu/storage"
)

// TestFixedSize has signatures whose numbers are short, negative in form, or too long.
func TestFixedSize(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short := 0
	for i := range 600 { // one in 128 has a number with a zero in front
		digest := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		signature, err := fixedSize(der)
		if err != nil || len(signature) != 64 {
			t.Fatalf("%x: %x, %v", der, signature, err)
		}
		if signature[0] == 0 || signature[32] == 0 {
			short++
		}
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		if !ecdsa.Verify(&key.PublicKey, digest[:], r, s) {
			t.Fatalf("%x does not verify", signature)
		}
	}
	if short == 0 {
		t.Error("no number was short")
	}
	for _, wrong := range [][]byte{nil, {0x30}, {0x30, 6, 2, 1, 0xff, 2, 1, 1}, append([]byte{0x30, 38, 2, 33, 1},
		append(bytes.Repeat([]byte{1}, 32), 2, 1, 1)...)} {
		if got, err := fixedSize(wrong); err == nil {
			t.Errorf("%x gave %x", wrong, got)
		}
	}
}

// The vector of RFC 6979 appendix A.2.5.
func TestSignaturesNeedNoRandomNumbers(t *testing.T) {
	raw, _ := hex.DecodeString("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721")
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := newSigner(&storage.Key{Private: key}, storage.UseES256, "at+jwt").signature([]byte("sample"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716" +
		"f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
	if got := hex.EncodeToString(signature); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
