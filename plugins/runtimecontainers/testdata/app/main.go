// Command app is what the tests run in containers: it shows its environment over
// HTTP and ends its requests on SIGTERM.
//
// In the directory /instances, mounted, it writes a file that is called like its
// address once it serves, and removes it before it ends: a registry as simple as
// they come. With the argument "-listen" it serves at a fixed address. A variable
// BROKEN ends it at once.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const drain = 400 * time.Millisecond // nobody came for that long: nobody will

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to serve")
	flag.Parse()
	if err := run(*address); err != nil {
		log.Fatal(err)
	}
}

func run(address string) error {
	if os.Getenv("BROKEN") != "" {
		os.Exit(3)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	var last atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last.Store(time.Now().UnixNano())
		if pause, err := time.ParseDuration(r.URL.Query().Get("pause")); err == nil {
			time.Sleep(pause)
		}
		env := map[string]string{}
		for _, entry := range os.Environ() {
			name, value, _ := strings.Cut(entry, "=")
			env[name] = value
		}
		if err := json.NewEncoder(w).Encode(env); err != nil {
			log.Print(err)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	entry := filepath.Join("/instances", listener.Addr().String())
	if err := os.WriteFile(entry, nil, 0o600); err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	if err := os.Remove(entry); err != nil {
		return err
	}
	last.Store(time.Now().UnixNano())
	for time.Since(time.Unix(0, last.Load())) < drain {
		time.Sleep(drain / 4)
	}
	return server.Shutdown(context.Background())
}
