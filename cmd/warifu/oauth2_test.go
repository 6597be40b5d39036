package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/server/outbound"
)

// The app that is being developed has its keys and its logout on this machine; nothing else of the network is opened.
func TestDevReachesLoopback(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("{}"))
	}))
	defer app.Close()
	settings, err := config.ReadDev(devConfig(t.TempDir(), "http://"+app.Listener.Addr().String(), app.Listener), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := settings.Provider.Outbound
	if _, err := client.Get(t.Context(), app.URL, "", 10); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(t.Context(), "http://10.0.0.1/", "", 10); !errors.Is(err, outbound.ErrRefused) {
		t.Errorf("a private network: %v", err)
	}
}
