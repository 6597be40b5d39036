package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
	"github.com/warifu/warifu/storage/storagetest"
)

// A key file that cannot be written is not told of as a fault of the storage.
func TestKeyFileThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "encryption.key")
	if err := storage.CreateKEKFile(file); err != nil {
		t.Fatal(err)
	}
	kek, err := storage.ReadKEK(file)
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	unwritable := fmt.Sprintf("/proc/self/fd/%d", open.Fd()) // nobody makes files in there
	etcd := storagetest.New(t)
	s := etcd.Store(func(o *storage.Options) { o.KEK, o.OwnKey = kek, unwritable })
	if err := s.Reseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, _, _ := newAPI(t, func(c *admin.Config) { c.Store = s })
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/encryption/rotate", strings.NewReader("{}"))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	var p admin.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusServiceUnavailable ||
		p.Code != "key_file" ||
		!strings.Contains(p.Detail, "cannot write the file of its encryption key") {
		t.Errorf("%d: %+v, %v", w.Code, p, err)
	}
}
