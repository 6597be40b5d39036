package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/warifu/warifu/server/admin"
	"github.com/warifu/warifu/storage"
)

// encryptionUse is what the encryption keys are called in lists of keys.
const encryptionUse = "encryption"

// add takes more of a list.
func (r *rows) add(more rows) error {
	r.data, r.names, r.cells = append(r.data, more.data...), append(r.names, more.names...), append(r.cells, more.cells...)
	return nil
}

// encryptionRows are the encryption keys as warifu keys list shows them.
func encryptionRows(e admin.Encryption) rows {
	out := rows{header: keyHeader}
	for _, k := range e.Keys {
		state := "opens"
		switch {
		case k.Seals:
			state = "active"
		case len(out.names) == 0:
			state = "next"
		}
		shown := admin.Key{Use: encryptionUse, KID: k.Fingerprint, State: state, Since: k.Since}
		name, cells := keyRow(shown)
		out.data, out.names, out.cells = append(out.data, shown), append(out.names, name), append(out.cells, cells)
	}
	return out
}

// rotateEncryption begins to replace the encryption key, and waits for the end if it is asked to.
func (c *cli) rotateEncryption(ctx context.Context, now bool, w waiting) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var e admin.Encryption
	if err := api.do(ctx, http.MethodPost, "/v1/encryption/rotate", map[string]bool{"now": now}, &e); err != nil {
		return err
	}
	waited, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	last, without := "", outage{c: c, api: api}
	for w.wait && !resealed(e) {
		if now := encryptionPhase(e); now != last {
			c.say("%s", now)
			last = now
		}
		storage.Pause(waited, glance)
		const goesOn = "; the servers go on, and warifu keys rotate --encryption --wait shows how far they are"
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted while the encryption key is replaced: %s"+goesOn, encryptionPhase(e))
		case waited.Err() != nil:
			return fmt.Errorf("the encryption key is not replaced everywhere after %s: %s"+goesOn, w.timeout, encryptionPhase(e))
		}
		var next admin.Encryption
		switch err := api.do(waited, http.MethodGet, "/v1/encryption", nil, &next); {
		case err == nil:
			e = next
			without.outlasts(nil)
		case waited.Err() != nil: // which comes first above
		case !without.outlasts(err):
			return err
		}
	}
	c.sayEncryption(e)
	return nil
}

// resealed reports whether everything is sealed under the newest key, and a server that keeps its keys has put the
// older ones aside.
func resealed(e admin.Encryption) bool {
	return !e.Complete.IsZero() && (e.OwnFile == "" || len(e.Keys) == 1)
}

// encryptionPhase is how far a server is, in words.
func encryptionPhase(e admin.Encryption) string {
	switch {
	case e.Fault != "":
		return e.Fault
	case e.Phase == "waiting" && len(e.Waiting) > 0:
		return "waiting for replicas that do not have the newest key first in encryptionKeyFiles yet, or do not seal under " +
			"it: " + harmless(strings.Join(e.Waiting, ", "))
	case e.Phase == "resealing":
		return fmt.Sprintf("resealing: %d records so far", e.Resealed)
	case e.Phase == "verifying":
		return fmt.Sprintf("verifying, after %d records were resealed", e.Resealed)
	}
	return "under way"
}

func (c *cli) sayEncryption(e admin.Encryption) {
	if !resealed(e) {
		c.say("%s: %s", c.paint(c.stderr, yellow, "begun"), encryptionPhase(e))
		c.say("  Leave every key where it is until all is done: warifu keys rotate --encryption --wait")
		return
	}
	c.say("everything is sealed under encryption key %s since %s", e.Keys[0].Fingerprint, when(e.Complete))
	switch {
	case len(e.Former) == 0:
	case e.OwnFile != "":
		c.say("  %s holds that key alone: back it up. The one before is in %s.%s:", e.OwnFile, e.OwnFile,
			e.Former[0].Fingerprint)
		c.say("  only backups from before %s need it; delete it when those have gone.", when(e.Complete))
	case len(e.Keys) > 1:
		for _, k := range e.Keys[1:] {
			c.say("  The file of key %s may leave encryptionKeyFiles on all replicas.", k.Fingerprint)
		}
		c.say("  Keep a copy as long as there are backups from before %s: they need it.", when(e.Complete))
	}
}
