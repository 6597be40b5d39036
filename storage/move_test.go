package storage_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

const movedIssuer = "https://id.test"

// exportKey makes a key file and reads it.
func exportKey(t *testing.T) storage.ExportKey {
	t.Helper()
	file := filepath.Join(t.TempDir(), "export.key")
	if err := storage.CreateKEKFile(file); err != nil {
		t.Fatal(err)
	}
	key, err := storage.ReadExportKey(file)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// exported is the file of an export of a store.
func exported(t *testing.T, s *storage.Store, kek *storage.KEK, key storage.ExportKey,
	chosen *storage.Selection) []byte {
	t.Helper()
	var lines, file bytes.Buffer
	if err := s.Export(t.Context(), storage.Exporting{Issuer: movedIssuer, Program: "test", Chosen: chosen},
		&lines); err != nil {
		t.Fatal(err)
	}
	if _, _, err := storage.WriteExport(&file, &lines, kek, key); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func importing(e *storagetest.Etcd, key storage.ExportKey) storage.Importing {
	return storage.Importing{Client: e.Client, Prefix: e.Prefix, KEK: e.KEK, Issuer: movedIssuer,
		Key: key, Logger: discard}
}

func imported(t *testing.T, e *storagetest.Etcd, key storage.ExportKey, file []byte) *storage.Imported {
	t.Helper()
	done, err := importing(e, key).Import(t.Context(), bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// used is what an app and a user hold of a server.
type used struct {
	client  *storage.Client
	user    *storage.User
	session string
	// tokens are refresh tokens of one grant, each from the one before; young is that of a grant which was never
	// refreshed.
	grant  storage.Grant
	tokens []storage.GrantRef
	young  storage.GrantRef
	sealed string
	at     storage.Revisions
}

func (u *used) refresh(t *testing.T, s *storage.Store, ref storage.GrantRef) (storage.GrantRef, error) {
	t.Helper()
	// As a refresh token does, it names the revision of the user as of when it was issued, and learns of another one.
	for {
		r, err := s.RotateGrant(t.Context(), ref, time.Now().Add(time.Hour), 0, u.at)
		var stale *storage.StaleError
		if errors.As(err, &stale) {
			if next := (storage.Revisions{Client: stale.Client.Revision, User: stale.User.Revision}); next != u.at {
				u.at = next
				continue
			}
		}
		next := ref
		next.Generation, next.At, next.Before, next.Base, next.Move = r.Generation, r.At, r.Before, r.Base, r.Move
		return next, err
	}
}

func (u *used) refreshed(t *testing.T, s *storage.Store) {
	t.Helper()
	next, err := u.refresh(t, s, u.tokens[len(u.tokens)-1])
	if err != nil {
		t.Fatal(err)
	}
	u.tokens = append(u.tokens, next)
}

func (u *used) ref(g storage.Grant) storage.GrantRef {
	return storage.GrantRef{ClientID: u.client.ID, GrantID: g.ID, UserID: u.user.ID, Generation: 1}
}

func use(t *testing.T, s *storage.Store) *used {
	t.Helper()
	ctx := t.Context()
	if err := s.RotateKeys(ctx, false, epochSchedules...); err != nil {
		t.Fatal(err)
	}
	u := new(used)
	u.client, u.user = registered(t, s)
	u.at = on(u.client, u.user)
	u.session = signedIn(t, s, u.user, "")
	u.grant = newGrant(u.client, u.user)
	mustGrant(t, s, u.grant, u.client, u.user)
	young := newGrant(u.client, u.user)
	mustGrant(t, s, young, u.client, u.user)
	u.young, u.tokens = u.ref(young), []storage.GrantRef{u.ref(u.grant)}
	for range 4 {
		u.refreshed(t, s)
	}
	var err error
	if u.sealed, err = s.Seal(storage.SealRefresh, []byte("a token")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := s.TakeGuess(ctx, "ann", 3, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// Records mean the same in another etcd: what apps and people hold goes on, and what has ended or was used stays so.
func TestMovedRecordsMeanTheSame(t *testing.T) {
	key := exportKey(t)
	from, there, back := storagetest.New(t), storagetest.Remote(t), storagetest.Alone(t)
	first := from.Store()
	u := use(t, first)
	file := exported(t, first, from.KEK, key, nil)

	done := imported(t, there, key, file)
	if done.Issuer != movedIssuer || done.Kinds["chains"] != 2 || done.Kinds["users"] != 1 {
		t.Errorf("it says %+v %+v", done.ExportHeader, done.ExportEnd)
	}
	s := there.Store()
	if plain, err := s.Open(storage.SealRefresh, u.sealed); err != nil || string(plain) != "a token" {
		t.Errorf("a sealed token: %q, %v", plain, err)
	}
	if p, err := s.Presence(t.Context(), u.session, u.user.ID, u.client.ID); err != nil || p.Session == nil {
		t.Errorf("the session: %+v, %v", p, err)
	}
	if allowed, _, err := s.TakeGuess(t.Context(), "ann", 3, time.Hour); err != nil || !allowed {
		t.Errorf("the third guess: %t, %v", allowed, err)
	}
	if allowed, _, err := s.TakeGuess(t.Context(), "ann", 3, time.Hour); err != nil || allowed {
		t.Errorf("a fourth guess: %t, %v", allowed, err)
	}
	u.refreshed(t, s)
	u.refreshed(t, s)
	if n := there.Count(func() { u.refreshed(t, s) }); n.Proposals != 1 || n.Reads != 0 {
		t.Errorf("a refresh after the move: %+v", n)
	}
	next, err := u.refresh(t, s, u.young)
	if err != nil || next.Generation != 2 {
		t.Errorf("the first refresh token of a grant: %+v, %v", next, err)
	}

	// And on, to an etcd of the other sort.
	file = exported(t, s, there.KEK, key, nil)
	imported(t, back, key, file)
	s = back.Store()
	u.refreshed(t, s)
	fresh := newGrant(u.client, u.user)
	c, err := s.CurrentClient(t.Context(), u.client.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	user, err := s.User(t.Context(), u.user.ID)
	if err != nil {
		t.Fatal(err)
	}
	if c.Revision <= u.client.Revision || user.Revision <= u.user.Revision {
		t.Errorf("revisions go on at %d and %d, and were %d and %d", c.Revision, user.Revision, u.client.Revision,
			u.user.Revision)
	}
	mustGrant(t, s, fresh, c, user)
	if n := back.Count(func() {
		if _, err := s.RotateGrant(t.Context(), u.ref(fresh), time.Now().Add(time.Hour), 0, on(c, user)); err != nil {
			t.Errorf("the refresh token of a grant that began after the move: %v", err)
		}
	}); n.Proposals != 1 || n.Reads != 0 {
		t.Errorf("a refresh of a new grant: %+v", n)
	}
	if g, err := s.FindGrant(t.Context(), u.grant.ID); err != nil || g.Generation != int64(len(u.tokens)) {
		t.Errorf("the grant is listed as %+v, %v", g, err)
	}
}

// Every refresh token that was used is a replay, wherever it was used: etcd's versions, which begin anew with a move,
// pass all the generations of old tokens again.
func TestUsedTokensStayUsedAfterAMove(t *testing.T) {
	const before, between = 4, 3
	key := exportKey(t)
	for replayed := range 1 + before + between {
		t.Run(fmt.Sprint("token ", replayed), func(t *testing.T) {
			from, there := storagetest.New(t), storagetest.New(t)
			first := from.Store()
			u := use(t, first)
			imported(t, there, key, exported(t, first, from.KEK, key, nil))
			s := there.Store()
			for range between {
				u.refreshed(t, s)
			}
			again := storagetest.New(t)
			imported(t, again, key, exported(t, s, there.KEK, key, nil))
			s = again.Store()
			for version := int64(1); version <= u.tokens[replayed].Generation; version++ { // until etcd counts as the token does
				u.refreshed(t, s)
			}
			if _, err := u.refresh(t, s, u.tokens[replayed]); !errors.Is(err, storage.ErrReplayed) {
				t.Errorf("generation %d: %v", u.tokens[replayed].Generation, err)
			}
			if _, err := u.refresh(t, s, u.tokens[len(u.tokens)-1]); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("the newest token after the replay: %v", err)
			}
		})
	}
}

// What was decided on the records of another etcd is decided anew: no revision of the new one is taken for one of
// those.
func TestDecisionsFromBeforeAMoveAreStale(t *testing.T) {
	key := exportKey(t)
	from, there := storagetest.New(t), storagetest.New(t)
	first := from.Store()
	u := use(t, first)
	imported(t, there, key, exported(t, first, from.KEK, key, nil))
	s := there.Store()
	var stale *storage.StaleError
	_, err := s.RotateGrant(t.Context(), u.young, time.Now().Add(time.Hour), 0, on(u.client, u.user))
	if !errors.As(err, &stale) || stale.User.Revision <= u.user.Revision || stale.Client.Revision <= u.client.Revision {
		t.Errorf("on revisions from before: %v, %+v", err, stale)
	}
	ended, err := s.EndUser(t.Context(), u.user.ID, storage.AuditEntry{Reason: "test"})
	if err != nil || ended.Grants != 2 || ended.Sessions != 1 {
		t.Errorf("what was begun before the move ends with the user's term: %+v, %v", ended, err)
	}
	if user, err := s.User(t.Context(), u.user.ID); err != nil || user.Term <= u.user.Revision {
		t.Errorf("the next term is %+v, %v", user, err)
	}
}

// The same records come out of an etcd as went in.
func TestImportedRecordsAreThoseThatWereExported(t *testing.T) {
	key := exportKey(t)
	from, there := storagetest.New(t), storagetest.New(t)
	first := from.Store()
	use(t, first)
	lines := func(s *storage.Store) map[string]string {
		var out bytes.Buffer
		if err := s.Export(t.Context(), storage.Exporting{Issuer: movedIssuer}, &out); err != nil {
			t.Fatal(err)
		}
		records, err := storage.ExportedRecords(&out)
		if err != nil {
			t.Fatal(err)
		}
		return records
	}
	file := exported(t, first, from.KEK, key, nil)
	was := lines(first)
	imported(t, there, key, file)
	is := lines(there.Store())
	for k, v := range was {
		if is[k] != v && !strings.HasPrefix(k, "audit/") {
			t.Errorf("%s is\n%s\nand was\n%s", k, is[k], v)
		}
	}
	for k := range is {
		if _, known := was[k]; !known && !strings.HasPrefix(k, "audit/") {
			t.Errorf("%s is new", k)
		}
	}
}

// Nothing of a file is taken that is not what was written, and nothing is written then.
func TestBadExportsAreRefused(t *testing.T) {
	key := exportKey(t)
	from := storagetest.New(t)
	s := from.Store()
	u := use(t, s)
	for n := range 200 { // for a file of several parts
		noise := make([]byte, 3000)
		_, _ = rand.Read(noise)
		err := s.Record(t.Context(), storage.AuditEntry{Actor: storage.UserActor(u.user.ID), Action: storage.AuditSignIn,
			Reason: base64.StdEncoding.EncodeToString(noise[:700]),
			Detail: fmt.Sprint(n, base64.StdEncoding.EncodeToString(noise[700:1400]))})
		if err != nil {
			t.Fatal(err)
		}
	}
	whole := exported(t, s, from.KEK, key, nil)
	const head, chunk = len("warifu export 1\n") + 8 + 32, 64<<10 + 16
	if len(whole) < head+2*chunk {
		t.Fatalf("the file has %d bytes, which is too little for this test", len(whole))
	}
	with := func(change func(file []byte) []byte) []byte { return change(bytes.Clone(whole)) }
	for name, c := range map[string]struct {
		file  []byte
		key   *storage.ExportKey
		other string
		says  string
	}{
		"empty":        {file: nil, says: "not what warifu export writes"},
		"another kind": {file: bytes.Repeat([]byte("etcd"), 1000), says: "warifu restore"},
		"a newer version": {file: with(func(f []byte) []byte {
			return bytes.Replace(f, []byte("export 1\n"),
				[]byte("export 2\n"), 1)
		}), says: "format 2"},
		"the header cut off": {file: whole[:head-3], says: "cut off"},
		"no parts":           {file: whole[:head], says: "cut off"},
		"cut in a part":      {file: whole[:head+chunk+100], says: "cut off"},
		"cut between parts":  {file: whole[:head+chunk], says: "cut off"},
		"a byte changed":     {file: with(func(f []byte) []byte { f[head+chunk+5] ^= 1; return f }), says: "part 2"},
		"the header changed": {file: with(func(f []byte) []byte { f[head-1] ^= 1; return f }), says: "part 1"},
		"something follows":  {file: append(bytes.Clone(whole), whole...), says: "follows its end"},
		"another key":        {file: whole, key: new(exportKey(t)), says: "--key"},
		"of another issuer":  {file: whole, other: "https://other.test", says: movedIssuer},
		"parts in each other's place": {file: with(func(f []byte) []byte {
			a, b := f[head:head+chunk], f[head+chunk:head+2*chunk]
			return slices.Concat(f[:head], b, a, f[head+2*chunk:])
		}), says: "part 1"},
	} {
		t.Run(name, func(t *testing.T) {
			e := storagetest.New(t)
			i := importing(e, key)
			if c.key != nil {
				i.Key = *c.key
			}
			if c.other != "" {
				i.Issuer = c.other
			}
			_, err := i.Import(t.Context(), bytes.NewReader(c.file))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if got := e.Dump(); got != "" {
				t.Errorf("it has written\n%s", got)
			}
		})
	}
}

// An import takes no records beside others, and no server in the meantime.
func TestImportWantsADatabaseForItself(t *testing.T) {
	key := exportKey(t)
	from := storagetest.New(t)
	s := from.Store()
	use(t, s)
	file := exported(t, s, from.KEK, key, nil)
	if _, err := importing(from, key).Import(t.Context(), bytes.NewReader(file)); !errors.Is(err, storage.ErrNotEmpty) {
		t.Errorf("where it came from: %v", err)
	}
	done := storagetest.New(t)
	imported(t, done, key, file)
	if _, err := importing(done, key).Import(t.Context(), bytes.NewReader(file)); !errors.Is(err, storage.ErrNotEmpty) {
		t.Errorf("for the second time: %v", err)
	}
	if _, err := importing(done, key).Discard(t.Context()); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a finished import is removed as unfinished: %v", err)
	}

	// A server that tells its time in the middle.
	served := storagetest.New(t)
	writes := 0
	served.Inject(func(write, sent bool) error {
		if write && !sent {
			if writes++; writes == 2 {
				served.Put("clocks/replica", `{"at":"2026-01-01T00:00:00Z"}`)
			}
		}
		return nil
	})
	if _, err := importing(served, key).Import(t.Context(), bytes.NewReader(file)); !errors.Is(err, storage.ErrServed) {
		t.Errorf("beside a server: %v", err)
	}
}

// A server does not open what an import has left that was not finished, at whatever request it ended, and the next
// import takes its place.
func TestUnfinishedImportIsNotServed(t *testing.T) {
	key := exportKey(t)
	from := storagetest.New(t)
	first := from.Store()
	u := use(t, first)
	file := exported(t, first, from.KEK, key, nil)
	e := storagetest.New(t)
	broken := errors.New("the process is gone")
	ended := false
	for requests := 0; !ended; requests++ {
		left := requests
		e.Inject(func(write, sent bool) error {
			if !write || sent {
				return nil
			}
			if left--; left < 0 {
				return broken
			}
			return nil
		})
		_, err := importing(e, key).Import(t.Context(), bytes.NewReader(file))
		e.Inject(nil)
		ended = err == nil
		if err != nil && !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if requests == 0 || ended {
			continue
		}
		s, err := storage.New(t.Context(), e.Client, storage.Options{Prefix: e.Prefix, KEK: e.KEK, Logger: discard})
		if !errors.Is(err, storage.ErrUnfinished) {
			if err == nil {
				s.Close()
			}
			t.Fatalf("after %d requests it opens: %v", requests, err)
		}
		if requests%2 == 0 {
			if _, err := importing(e, key).Discard(t.Context()); err != nil || e.Dump() != "" {
				t.Fatalf("after %d requests there is left: %v\n%s", requests, err, e.Dump())
			}
		}
	}
	u.refreshed(t, e.Store())
}

// Who chooses gets what an app or a user is, and nothing of anybody else.
func TestSelectionIsExportedAlone(t *testing.T) {
	key := exportKey(t)
	from := storagetest.New(t)
	first := from.Store()
	u := use(t, first)
	if _, err := first.PutUser(t.Context(), storage.User{ID: "user-bob", Connector: "local",
		Email: "bob@example.com"}); err != nil {
		t.Fatal(err)
	}
	e := storagetest.New(t)
	done := imported(t, e, key, exported(t, first, from.KEK, key, &storage.Selection{Users: []string{"bob@example.com"}}))
	if done.Kinds["users"] != 1 || done.Kinds["clients"]+done.Kinds["grants"]+done.Kinds["audit"]+
		done.Kinds["sessions"] > 0 {
		t.Errorf("it has %v", maps.All(done.Kinds))
	}
	s := e.Store()
	if err := s.RotateKeys(t.Context(), false, epochSchedules...); err != nil {
		t.Fatal(err)
	}
	if was, is := pairwise(t, first, "app.test", "user-bob"), pairwise(t, s, "app.test", "user-bob"); was != is {
		t.Errorf("the user is %s to apps, and was %s", is, was)
	}
	if _, err := s.Open(storage.SealRefresh, u.sealed); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a refresh token of the server that goes on: %v", err)
	}
	if found, err := s.FindUser(t.Context(), "bob@example.com"); err != nil || found.ID != "user-bob" {
		t.Errorf("the user is found by name: %v, %v", found, err)
	}
	var lines bytes.Buffer
	err := first.Export(t.Context(), storage.Exporting{Chosen: &storage.Selection{Apps: []string{"nobody"}}}, &lines)
	if err == nil || !strings.Contains(err.Error(), "there is no app nobody") {
		t.Errorf("an app that is not there: %v", err)
	}
	if _, _, err := storage.WriteExport(io.Discard, &lines, from.KEK, key); err == nil ||
		!strings.Contains(err.Error(), "there is no app nobody") {
		t.Errorf("whoever reads the lines learns %v", err)
	}
}

// The file says nothing to who has no key.
func TestExportHidesWhatIsInIt(t *testing.T) {
	key := exportKey(t)
	from := storagetest.New(t)
	s := from.Store()
	u := use(t, s)
	file := exported(t, s, from.KEK, key, nil)
	for _, word := range []string{u.user.ID, u.client.ID, u.user.Email, movedIssuer} {
		if bytes.Contains(file, []byte(word)) {
			t.Errorf("the file holds %q", word)
		}
	}
}

// Every kind of record in the documentation moves, or is known to stay.
func TestEveryKindOfRecordIsExported(t *testing.T) {
	text, err := os.ReadFile("storage.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := storage.KindsThatMove()
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^//\t([a-z]+)/\S|, ([a-z]+)/`).FindAllStringSubmatch(string(text), -1) {
		kind := m[1] + m[2]
		if found++; !slices.Contains(kinds, kind) {
			t.Errorf("records %s/... are in no export", kind)
		}
	}
	if found < 30 {
		t.Errorf("the documentation names %d kinds of records", found)
	}
}
