//go:build unix

package main

import "testing"

// What is left for storage and plugins.
func TestConnectionsLeaveDescriptors(t *testing.T) {
	all, known := descriptors()
	if !known {
		t.Fatal("this system does not tell how many descriptors a process may have")
	}
	if most := webConnections(1 << 30); most+2*mostAdmin > all-min(leastReserve, all/2)+16 {
		t.Errorf("%d connections of %d descriptors", most, all)
	}
}
