package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/warifu/warifu/cmd/warifu/config"
	"github.com/warifu/warifu/storage"
)

// Replicas serve alike where their configurations are alike. Each tells the others a digest of its own, and says so
// when there is another one. It goes on all the same: a new configuration reaches one replica after the other.

// compareEvery is how often a replica looks at the others. What they say is a minute old at most.
const compareEvery = 30 * time.Second

// mostRefused are the bytes of why a configuration was refused that other replicas are told.
const mostRefused = 500

// announce tells the other replicas what this one is. Its error is that they seal under a key that this one does not
// have; everything else is told again within a minute.
func (i *instance) announce(ctx context.Context) error {
	said := storage.Announcement{Version: programVersion()}
	if last := i.last.Load(); last != nil {
		said.Refused = shortened(last.refused, mostRefused)
	}
	key, err := i.store.ConfigKey()
	if err == nil {
		said.Config = i.inUse.Load().Digest(key)
		err = i.store.Announce(ctx, said)
	}
	if missing := (*storage.KEKMissingError)(nil); errors.As(err, &missing) {
		return err
	} else if err != nil {
		i.log.WarnContext(ctx, "this replica is not announced to others yet", "error", err) // it is, within a minute
	}
	select {
	case i.announced <- struct{}{}:
	default:
	}
	return nil
}

// compareReplicas says when replicas have other configurations than this one, once for each change.
func (i *instance) compareReplicas(ctx context.Context) {
	i.metrics.Differ(0)
	if i.cfg.Storage.Type == config.StorageEmbedded {
		return // there are no others
	}
	said := ""
	for ctx.Err() == nil {
		others, err := i.unlike(ctx)
		now := strings.Join(others, ", ")
		if err == nil {
			i.first.Note(noteOf(others))
			i.metrics.Differ(len(others))
		}
		switch {
		case err != nil:
			if ctx.Err() == nil {
				i.log.DebugContext(ctx, "the configurations of replicas cannot be compared; trying again", "error", err)
			}
		case now != said && now != "":
			i.log.WarnContext(ctx, "other replicas run with a different configuration: give all of them the same "+
				"one, then run warifu reload on each", "replicas", others)
		case now != said:
			i.log.InfoContext(ctx, "all replicas run with the same configuration again")
		}
		if err == nil {
			said = now
		}
		timer := time.NewTimer(compareEvery)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-i.announced:
		}
		timer.Stop()
	}
}

func noteOf(others []string) string {
	if len(others) == 0 {
		return ""
	}
	return "replicas that run with a different configuration: " + strings.Join(others, ", ")
}

// unlike are the replicas whose configuration is another one. Those that do not tell are of older versions.
func (i *instance) unlike(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, compareEvery/2)
	defer cancel()
	replicas, err := i.store.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	own := slices.IndexFunc(replicas, func(r storage.Replica) bool { return r.Self })
	var others []string
	for _, r := range replicas {
		if own >= 0 && r.Config != "" && r.Config != replicas[own].Config {
			others = append(others, r.Name)
		}
	}
	return others, nil
}
