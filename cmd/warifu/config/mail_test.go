package config

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/server/mail"
	"github.com/warifu/warifu/server/mail/mailtest"
)

// A mail goes where the configuration says, as whom it says; the password is read again for each.
func TestMailIsWired(t *testing.T) {
	inbox := mailtest.Start(t, mailtest.Options{Username: "warifu", Password: "correct horse"})
	ca, password := secretFile(t, string(inbox.PEM)), secretFile(t, "not yet\n")
	settings, err := wired(t, fmt.Sprintf("mail: {server: \"%s:%d\", caFile: %s, username: warifu, passwordFile: %s, "+
		"from: Example <no-reply@example.com>}\n", inbox.Host, inbox.Port, ca, password))
	if err != nil {
		t.Fatal(err)
	}
	options := *settings.Mail
	options.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	options.Pauses = []time.Duration{time.Millisecond}
	sender, err := mail.New(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sender.Run(ctx)
	}()
	defer func() {
		stop()
		<-done
	}()
	sender.Send(mail.Letter{Kind: mail.Reset, To: "ann@example.com", Site: "Example", Link: "https://id.example.com/",
		Valid: time.Minute})
	if err := os.WriteFile(password, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := inbox.Next()
	if !m.TLS || m.Username != "warifu" || m.From != "no-reply@example.com" ||
		!strings.Contains(m.Header.Get("From"), "Example") ||
		m.Helo != "id.example.com" {
		t.Errorf("%+v", m)
	}
}

func TestMailFilesThatCannotBeRead(t *testing.T) {
	_, err := wired(t, "mail: {server: \"smtp.example.com:465\", tls: tls, caFile: /no/ca.pem, username: w, "+
		"passwordFile: /no/password, from: a@example.com}\n")
	for _, want := range []string{"mail.caFile names /no/ca.pem", "mail.passwordFile names /no/password"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	settings, err := wired(t, "mail: {server: \"smtp.example.com:465\", from: a@example.com}\n")
	if err != nil || len(settings.Warnings) == 0 || !strings.Contains(fmt.Sprint(settings.Warnings), "port 465") {
		t.Errorf("%v %v", settings, err)
	}
	if settings, err := wired(t, ""); err != nil || settings.Mail != nil {
		t.Errorf("without a mail server: %+v %v", settings.Mail, err)
	}
}
