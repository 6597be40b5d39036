package main

import (
	"fmt"
	"net"
	"syscall"
)

// peerOf names who is at the other end of a Unix socket, as the kernel says (SO_PEERCRED, unix(7)).
func peerOf(conn *net.UnixConn) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return unknownPeer
	}
	peer := unknownPeer
	if err := raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			peer = fmt.Sprintf("uid:%d", cred.Uid)
		}
	}); err != nil {
		return unknownPeer
	}
	return peer
}
