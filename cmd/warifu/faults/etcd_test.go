//go:build faults

package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// memberEnv tells the test binary to be a member of an etcd cluster: the server of the module in go.mod, in a process
// of its own.
const memberEnv = "WARIFU_FAULTS_MEMBER"

// membership is how a member is told what it is.
type membership struct {
	Name, Dir    string
	Peer, Client string // where it listens
	Advertised   string // where the others reach it: through its link
	Cluster      string
	Quota        int64
}

// runMember is the process of a member; it returns when the member cannot serve.
func runMember(text string) error {
	var m membership
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster, cfg.QuotaBackendBytes = m.Name, m.Dir, m.Cluster, m.Quota
	cfg.LogLevel = "warn"
	for _, u := range []struct {
		to   *[]url.URL
		addr string
	}{{&cfg.ListenPeerUrls, m.Peer}, {&cfg.AdvertisePeerUrls, m.Advertised},
		{&cfg.ListenClientUrls, m.Client}, {&cfg.AdvertiseClientUrls, m.Client}} {
		*u.to = []url.URL{{Scheme: "http", Host: u.addr}}
	}
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	return <-etcd.Err()
}

// member is one of three.
type member struct {
	process
	id     string // as it calls itself to the others
	client string // its address, without a link
	peers  *link  // through which the others reach it
	direct *clientv3.Client
}

// cluster is an etcd of three members.
type cluster struct {
	t       testing.TB
	members []*member
}

// newCluster starts three members and waits until they have a leader. A quota of 0 is etcd's own.
func newCluster(t testing.TB, dir string, quota int64) *cluster {
	t.Helper()
	c := &cluster{t: t}
	addresses := freeAddresses(t, 6)
	initial := ""
	for i := range 3 {
		m := &member{client: addresses[3+i], peers: newLink(t, addresses[i], true)}
		m.name = fmt.Sprintf("etcd-%d", i)
		if i > 0 {
			initial += ","
		}
		initial += m.name + "=http://" + m.peers.addr()
		c.members = append(c.members, m)
	}
	for i, m := range c.members {
		told, err := json.Marshal(membership{Name: m.name, Dir: filepath.Join(dir, m.name), Peer: addresses[i],
			Client:     m.client,
			Advertised: m.peers.addr(), Cluster: initial, Quota: quota})
		if err != nil {
			t.Fatal(err)
		}
		m.log = filepath.Join(dir, m.name+".log")
		m.make = func() *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), memberEnv+"="+string(told))
			return cmd
		}
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.kill)
		m.direct, err = clientv3.New(clientv3.Config{Endpoints: []string{"http://" + m.client}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.direct.Close() })
	}
	for _, m := range c.members {
		until(t, m.name+" starts", patience, func() error {
			status, err := m.status()
			if err != nil {
				return err
			}
			m.id = fmt.Sprintf("%x", status.Header.MemberId)
			if status.Leader == 0 {
				return errors.New("no leader")
			}
			return nil
		})
	}
	return c
}

func (m *member) status() (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return m.direct.Status(ctx, "http://"+m.client)
}

// leader is the member that leads now, and the others.
func (c *cluster) leader() (leader *member, followers []*member) {
	c.t.Helper()
	until(c.t, "etcd has a leader", patience, func() error {
		leader, followers = nil, nil
		for _, m := range c.members {
			if status, err := m.status(); err == nil && status.Leader == status.Header.MemberId {
				leader = m
			} else {
				followers = append(followers, m)
			}
		}
		if leader == nil {
			return errors.New("no leader")
		}
		return nil
	})
	return leader, followers
}

// isolate gives everything between a member and the others this weather; clients reach it as before.
func (c *cluster) isolate(m *member, w weather) {
	m.peers.set(w)
	for _, other := range c.members {
		if other != m {
			other.peers.setFrom(m.id, w)
		}
	}
}

// healed waits until every member serves with the same leader.
func (c *cluster) healed() time.Duration {
	c.t.Helper()
	return until(c.t, "etcd is whole again", patience, func() error {
		leaders := make(map[uint64]bool)
		for _, m := range c.members {
			status, err := m.status()
			if err != nil {
				return err
			}
			leaders[status.Leader] = true
		}
		if len(leaders) != 1 || leaders[0] {
			return errors.New("no common leader")
		}
		return nil
	})
}
