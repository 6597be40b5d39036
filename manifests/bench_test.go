package manifests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warifu/warifu/storage"
)

// The env of 1,000 targets, of 10 apps, changes at once and arrives by way of the real runtime file, a plugin process
// of its own. One operation is from the first apply until the last target has confirmed.
func BenchmarkPushTo1000Targets(b *testing.B) {
	const apps, targets = 10, 100
	r := newRig(b).withFiles()
	r.opts.Logger = nil // as quiet as a server at its usual level
	stop := r.run(r.deployer())
	var docs [][]*Document
	for i := range apps {
		var workers strings.Builder
		for j := range targets {
			fmt.Fprintf(&workers, "w%d: {}, ", j)
		}
		docs = append(docs, documents(b, worker(fmt.Sprintf("app-%d", i), "workers: {web: {}}", "workers: {"+
			workers.String()+"}")))
	}
	round := 0
	for b.Loop() {
		round++
		d := r.deployer(func(o *DeployerOptions) { o.Issuer = fmt.Sprintf("https://issuer-%d.example.com", round) })
		for _, doc := range docs {
			plans, err := d.Plan(b.Context(), doc)
			if err == nil {
				err = d.Apply(b.Context(), plans[0])
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		r.allReady(apps * targets)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N*apps*targets), "ms/target")
	stop()
	if issuer := r.env("app-7", "worker", "w42")["OAUTH_ISSUER"]; issuer != fmt.Sprintf("https://issuer-%d.example.com",
		round) {
		b.Errorf("the issuer at a target is %q", issuer)
	}
	if n := strings.Count(r.log.String(), `msg="plugin started" plugin=file`); n != 1 {
		b.Errorf("%d processes of the runtime", n)
	}
}

// allReady waits until so many deliveries are ready.
func (r *rig) allReady(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for {
		list, err := r.store.Deliveries(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(list) == n && all(storage.DeliveryReady)(list) {
			return
		}
		storage.Pause(ctx, 200*time.Millisecond)
	}
}
