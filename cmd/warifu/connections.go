package main

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Each connection takes a file descriptor, and etcd and plugins need some as well: an etcd that cannot open its next
// file ends the process. So the listeners share out less than there are. When all are in use, the connection that has
// been idle for longest makes room for the next one; only when none is idle, the next one is closed. One address,
// unless it is a trusted proxy, gets a part of them alone; at a Unix socket there are no addresses.
const (
	// mostWeb bounds the connections of browsers and apps where there are more descriptors than anybody needs: each
	// takes memory.
	mostWeb = 10_000
	// mostAdmin are those of the admin API over TCP, and as many at its socket.
	mostAdmin = 64
	// leastReserve are the descriptors for storage and plugins, at least; otherwise it is a quarter of all.
	leastReserve = 256
	// share of the connections that one address gets: half of them.
	share = 2
)

// webConnections is how many connections browsers and apps may have: as configured, as far as there are descriptors.
func webConnections(configured int) int {
	most := mostWeb
	if configured > 0 {
		most = configured
	}
	all, known := descriptors()
	if !known {
		return most
	}
	reserve := min(max(leastReserve, all/4), all/2)
	return min(most, max(all-reserve-2*mostAdmin, 16))
}

// connections are those of one or several listeners.
type connections struct {
	name string
	log  *slog.Logger

	mu      sync.Mutex // guards the rest, and the fields of each connection
	most    int
	trusted []netip.Prefix // proxies, which are not bounded by themselves
	open    int
	from    map[netip.Addr]int // how many are open
	idle    *list.List         // of *connection, the longest idle first
	told    time.Time          // that there are too many
}

func newConnections(name string, most int, trusted []netip.Prefix, log *slog.Logger) *connections {
	return &connections{
		name: name, most: most, trusted: trusted, log: log, from: make(map[netip.Addr]int), idle: list.New(),
	}
}

// bound says how many there may be from now on. Those that are open stay.
func (c *connections) bound(most int, trusted []netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most, c.trusted = most, trusted
}

// connection is one of them.
type connection struct {
	net.Conn
	of     *connections
	from   netip.Addr
	idle   *list.Element // nil while a request is served
	closed bool
}

// bounded is a listener that accepts what there is room for.
type bounded struct {
	net.Listener
	of *connections
}

func (b bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		admitted, dropped := b.of.admit(conn)
		if dropped != nil {
			_ = dropped.Close() // nobody has sent a request on it
		}
		if admitted != nil {
			return admitted, nil
		}
	}
}

// admit makes room for a connection. dropped is the one that has to be closed for it, or it itself.
func (c *connections) admit(conn net.Conn) (admitted, dropped net.Conn) {
	k := &connection{Conn: conn, of: c}
	if peer, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		k.from = peer.Addr().Unmap()
	}
	if network, err := k.from.Prefix(64); err == nil && k.from.Is6() {
		k.from = network.Addr() // whoever has an IPv6 address usually has its network
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	proxy := slices.ContainsFunc(c.trusted, func(n netip.Prefix) bool { return n.Contains(k.from) })
	full, alone := c.open >= c.most, k.from.IsValid() && !proxy && c.from[k.from] >= max(c.most/share, 1)
	if full || alone {
		victim := c.longestIdle(k.from, alone)
		if c.told.IsZero() || time.Since(c.told) > time.Minute {
			c.told = time.Now()
			c.log.Warn("the connection limit is reached: each new connection closes the one that has been idle longest",
				"listener", c.name, "most", c.most, "of_address", alone, "address", k.from)
		}
		if victim == nil {
			return nil, conn
		}
		c.remove(victim)
		dropped = victim.Conn
	}
	c.open++
	c.from[k.from]++
	k.idle = c.idle.PushBack(k)
	return k, dropped
}

// longestIdle is the connection that is idle for longest, of all or of one address.
func (c *connections) longestIdle(from netip.Addr, alone bool) *connection {
	for at := c.idle.Front(); at != nil; at = at.Next() {
		if k := at.Value.(*connection); !alone || k.from == from {
			return k
		}
	}
	return nil
}

// remove forgets a connection, once.
func (c *connections) remove(k *connection) {
	if k.closed {
		return
	}
	k.closed = true
	c.busy(k)
	c.open--
	if c.from[k.from]--; c.from[k.from] == 0 {
		delete(c.from, k.from)
	}
}

func (c *connections) busy(k *connection) {
	if k.idle != nil {
		c.idle.Remove(k.idle)
		k.idle = nil
	}
}

// Close is [net.Conn.Close].
func (k *connection) Close() error {
	k.of.mu.Lock()
	k.of.remove(k)
	k.of.mu.Unlock()
	return k.Conn.Close()
}

// state is for [http.Server.ConnState].
func (c *connections) state(conn net.Conn, state http.ConnState) {
	if tls, is := conn.(interface{ NetConn() net.Conn }); is {
		conn = tls.NetConn()
	}
	k, is := conn.(*connection)
	if !is {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateActive:
		c.busy(k)
	case http.StateIdle:
		if !k.closed && k.idle == nil {
			k.idle = c.idle.PushBack(k)
		}
	}
}
