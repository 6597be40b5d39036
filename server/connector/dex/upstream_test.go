package dex

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dex "github.com/dexidp/dex/connector"
)

// goroutines counts those of this test, once all have done what they could.
func goroutines() int {
	synctest.Wait()
	stacks := make([]byte, 4<<20)
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("synctest bubble"))
}

// ok asks an upstream for nothing.
func ok(ctx context.Context, u *upstream) error {
	_, err := call(ctx, u, func(context.Context, dex.Connector) (bool, error) { return true, nil })
	return err
}

// An upstream whose opening hangs holds nobody for longer than 8 s, few goroutines for as long as it hangs, and nothing
// when it is back.
func TestOpeningsThatHangAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int32
		back := make(chan struct{})
		u := newUpstream(func(context.Context) (dex.Connector, error) {
			begun.Add(1)
			<-back
			return "open", nil
		})
		before := goroutines()
		for range 200 {
			began := time.Now()
			if err := ok(t.Context(), u); err == nil || time.Since(began) > callTimeout {
				t.Fatalf("%v after %s", err, time.Since(began))
			}
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		if n := begun.Load(); n != maxHanging {
			t.Errorf("%d openings were begun", n)
		}
		if after := goroutines(); after > before+maxHanging {
			t.Errorf("%d goroutines, %d before", after, before)
		}
		close(back)
		synctest.Wait()
		if err := ok(t.Context(), u); err != nil {
			t.Errorf("when it is back: %v", err)
		}
		if after := goroutines(); after > before {
			t.Errorf("%d goroutines, %d before", after, before)
		}
	})
}

func TestOpeningsThatFailAreTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration
		began, fails := time.Now(), true
		u := newUpstream(func(context.Context) (dex.Connector, error) {
			tries = append(tries, time.Since(began))
			if fails {
				return nil, errors.New("refused")
			}
			return "open", nil
		})
		for time.Since(began) < 4*time.Minute {
			if err := ok(t.Context(), u); err == nil || err.Error() != "refused" {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		pauses := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
		if len(tries) != len(pauses)+1 {
			t.Fatalf("tried after %s", tries)
		}
		for i, pause := range pauses {
			if got := tries[i+1] - tries[i]; got != pause*time.Second {
				t.Errorf("pause %d is %s", i, got)
			}
		}
		fails = false
		time.Sleep(time.Minute)
		if err := ok(t.Context(), u); err != nil {
			t.Error(err)
		}
	})
}

// Many who come at once share one opening, and one who goes away does not end it for the others.
func TestOneOpeningServesAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int32
		u := newUpstream(func(context.Context) (dex.Connector, error) {
			begun.Add(1)
			time.Sleep(time.Second)
			return "open", nil
		})
		gone, cancel := context.WithCancel(t.Context())
		errs := make(chan error, maxCalls)
		go func() { errs <- ok(gone, u) }()
		synctest.Wait()
		for range maxCalls - 1 {
			go func() { errs <- ok(t.Context(), u) }()
		}
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for range maxCalls - 1 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if begun.Load() != 1 {
			t.Errorf("%d openings", begun.Load())
		}
	})
}

// Calls that hang are bounded, whoever comes then is told so, and they recover.
func TestCallsThatHangAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(func(context.Context) (dex.Connector, error) { return "open", nil })
		back := make(chan struct{})
		hang := func(context.Context, dex.Connector) (string, error) { // ignores its context, as Dex's code does
			<-back
			return "late", nil
		}
		before := goroutines()
		errs := make(chan error)
		for range 3 * maxCalls {
			go func() {
				answer, err := call(t.Context(), u, hang)
				if answer != "" {
					err = nil
				}
				errs <- err
			}()
		}
		began := time.Now()
		for range 3 * maxCalls {
			if err := <-errs; err == nil {
				t.Error("a late answer was taken")
			}
		}
		if took := time.Since(began); took > callTimeout {
			t.Errorf("waited for %s", took)
		}
		if after := goroutines(); after > before+maxCalls {
			t.Errorf("%d goroutines, %d before", after, before)
		}
		close(back)
		synctest.Wait()
		if err := ok(t.Context(), u); err != nil {
			t.Error(err)
		}
		if after := goroutines(); after > before {
			t.Errorf("%d goroutines, %d before", after, before)
		}
	})
}

func TestPanicsAreFaults(t *testing.T) {
	u := newUpstream(func(context.Context) (dex.Connector, error) { return "open", nil })
	_, err := call(t.Context(), u, func(context.Context, dex.Connector) (string, error) {
		var nobody *Spec
		return nobody.ID, nil
	})
	if err == nil || !strings.Contains(err.Error(), "did not expect") {
		t.Error(err)
	}
	u = newUpstream(func(context.Context) (dex.Connector, error) { panic("ann@example.test") })
	if err := ok(t.Context(), u); err == nil || strings.Contains(err.Error(), "ann") {
		t.Error(err)
	}
}

func TestNothingThatNamesPeopleIsLogged(t *testing.T) {
	var out bytes.Buffer
	log := quietLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), "corp")
	log = log.With(slog.Group("connector", "type", "ldap", "id", "corp")).With("user", "ann").WithGroup("more")
	log.Error("invalid password for user", "user_dn", "uid=ann")
	log.Info("performing ldap search", "filter", "(uid=ann)")
	log.Warn("an option is deprecated", "email", "ann@example.test")
	text := out.String()
	for _, want := range []string{
		`level=DEBUG msg="invalid password for user" connector=corp`,
		`level=DEBUG msg="performing ldap search" connector=corp`,
		`level=WARN msg="an option is deprecated" connector=corp`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "ann") && strings.Contains(text, "=ann") || strings.Contains(text, "ann@") {
		t.Errorf("names people:\n%s", text)
	}
}
