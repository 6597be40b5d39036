package factor_test

import (
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/warifu/warifu/server/factor"
)

// spent is the processor's time that this process has used: what else runs on the machine does not count.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// How long a wrong password takes tells nobody which names there are, nor where a hash came from.
func TestWrongPasswordsTakeTheSameTimeWhateverTheHash(t *testing.T) {
	cheap, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	dear, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost+4)
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[string]string{"nobody": "", "ours": factor.HashPassword("x"), "cheap": string(cheap),
		"dear":      string(dear),
		"elsewhere": "$argon2id$v=19$m=8192,t=1,p=1$c29tZXRoaW5nIG9k$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
	var costs factor.Costs
	costs.KnowOurs()
	for _, hash := range hashes {
		costs.Know(hash)
	}
	best := make(map[string]time.Duration)
	for range 8 {
		for name, hash := range hashes {
			begun := spent(t)
			if right, _ := costs.Check(hash, "y"); right {
				t.Fatal(name)
			}
			if took := spent(t) - begun; best[name] == 0 || took < best[name] {
				best[name] = took
			}
		}
	}
	for name, took := range best {
		t.Logf("%s: %s", name, took)
		if nobody := best["nobody"]; took > 4*nobody || nobody > 4*took {
			t.Errorf("%s at %s, %s at a name that nobody has", took, name, nobody)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	bc, err := bcrypt.GenerateFromPassword([]byte("correct"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	ours := factor.HashPassword("correct")
	for _, c := range []struct {
		rule, hash, password string
		right, stale         bool
	}{
		{"ours", ours, "correct", true, false},
		{"wrong", ours, "Correct", false, false},
		{"bcrypt", string(bc), "correct", true, true},
		{"another cost", "$argon2id$v=19$m=65536,t=3,p=4$" +
			"c29tZXNhbHRzb21lc2FsdA$wXLSNdZwmIJRrl/5p4eEiDRb7n3Vrg3exgbTIUMvKFo", "x", false, false},
	} {
		right, stale := factor.CheckPassword(c.hash, c.password)
		if right != c.right || right && stale != c.stale {
			t.Errorf("%s: %v, %v", c.rule, right, stale)
		}
		if err := factor.CheckHash(c.hash); err != nil {
			t.Errorf("%s: %v", c.rule, err)
		}
	}
	for rule, hash := range map[string]string{
		"plain":            "correct",
		"argon2i":          "$argon2i$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
		"too much memory":  "$argon2id$v=19$m=1048576,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
		"too many passes":  "$argon2id$v=19$m=65536,t=300,p=4$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
		"too little":       "$argon2id$v=19$m=8,t=1,p=4$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
		"no salt":          "$argon2id$v=19$m=65536,t=3,p=4$$AAAAAAAAAAAAAAAAAAAAAA",
		"short sum":        "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$AAAA",
		"another version":  "$argon2id$v=16$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA",
		"something beside": "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA$",
	} {
		if err := factor.CheckHash(hash); err == nil {
			t.Errorf("%s is taken", rule)
		}
		if right, _ := factor.CheckPassword(hash, "correct"); right {
			t.Errorf("%s is right", rule)
		}
	}
}
