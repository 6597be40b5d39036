// Package faults breaks what the binary depends on, and looks whether anything is lost, doubled, or never well again.
//
// Everything is real: an etcd of three members, each a process of its own; two replicas of `warifu serve` on it;
// clients and operators who use both. Between a replica and a member, and between members, every connection goes
// through a TCP proxy (link) that can cut it, slow it down, swallow what it gets, or swallow replies alone. Processes
// are killed, paused, and started again; disks and quotas run full; clocks are wrong; backups are old.
//
// Everything is behind the build tag faults:
//
//	make faults          # every cell, in less than 15 minutes on two cores
//	make faults-short    # the short set, in about a minute
//	cd cmd/warifu/faults && go test -tags faults -run TestHistories/the_leader
//
// A cell is a fault with what must hold meanwhile and afterwards; it prints one line of a table:
//
//	ops        requests of clients and operators, each of which has an outcome
//	viol.      what must not be: it fails the cell, with the history that shows it
//	recovery   from the end of the fault until a whole life of a grant, and a deployment, work at every replica
//	errors     requests that did not do what they are for and said so (503), or got no answer, by class; they are no
//	           violations unless the cell says so, an answer 500 always is one
//
// The environment says where things are:
//
//	WARIFU_FAULTS_BINARY    a binary that is built already; otherwise the suite builds one
//	WARIFU_FAULTS_OLD_ETCD  an executable of etcd 3.4
//	WARIFU_ARTIFACTS        a directory for the table (faults.txt), and for the logs of cells that fail
//
// # Histories
//
// Every operation on a grant (a code is exchanged, a refresh token is used or used again, the grant is revoked, one of
// its tokens is introspected; several tabs of a browser use the same refresh token), on the version of an app, and on
// its secret is noted with its call, its reply and its outcome. Afterwards porcupine looks for an order in which they
// could have happened one at a time. An operation with an unknown outcome (503, a cut connection, a timeout) has
// happened at any time after its call, or never. So this finds two successors of one token, a code that is redeemed
// twice, a tab that is refused or gets an old token, a token that works after an acknowledged revocation, and an
// acknowledged change that is lost. TestModels shows that it does.
//
// # Invariants
//
//   - A wait for what must come has a deadline ([patience]), and looks again and again. Sleeps are the length of a
//     fault, nothing else.
//   - Each cell has processes of its own, which end with it, and with this process however it ends.
//   - What a cell measures is judged only against what the product promises (seconds), never against what is fast.
package faults
