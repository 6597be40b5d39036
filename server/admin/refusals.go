package admin

import (
	"strconv"
	"strings"
	"sync"

	"github.com/warifu/warifu/server/oauth"
)

// Refusals is what one replica remembers of the requests that it has refused, for warifu explain: the last ones, in
// memory, up to a number of requests and of bytes. Nothing of it is stored, so no client can fill the database by being
// refused. Adding takes constant time, whoever reads meanwhile.
//
// Nor can anybody drive out what others were refused: what an address is refused beyond its share, addresses that there
// are not, which any host is probed for, and what only reads the admin API, or comes there without the token, have a
// smaller ring of their own. Two answers are not kept at all,
// because they are no refusals: a device is told to go on polling, and a proof to use a nonce.
//
// It holds no secret. What comes in names its parameters one by one ([oauth.TellingParams]), and whatever looks like
// a credential is blanked all the same, because people do put a secret where an id belongs.
type Refusals struct {
	most int

	mu      sync.Mutex // owns what follows
	kept    ring
	passing ring // what comes in floods
	byID    map[string]*refused
}

// ring is the last refusals of a kind.
type ring struct {
	mostBytes int
	all       []*refused // the oldest at first
	first     int
	count     int
	bytes     int
}

func newRing(n int) ring {
	return ring{mostBytes: max(n*averageSize, leastBytes), all: make([]*refused, n)}
}

// passingShare: the ring for floods is so many times smaller than the other.
const passingShare = 8

// DefaultRefusals is how many requests a replica should remember: some megabytes, if all of them are long.
const DefaultRefusals = 4096

// Limits of what is kept of one refusal, in bytes but for maxReasons.
const (
	maxShort   = 256 // ids and names
	maxText    = 1024
	maxReasons = 200
	// averageSize is what a refusal takes when it is long: a few may be longer, as a manifest with many faults is.
	averageSize = 2 << 10
	// leastBytes leaves room for one refusal as long as can be.
	leastBytes = 1 << 20
)

// refused is one request, in the form in which it is kept.
type refused struct {
	oauth.Refusal // its Error is the first of the reasons
	reasons       []reason
	more          int // reasons that were too many to keep
	size          int
}

// reason is one thing that was wrong. Only a manifest has several.
type reason struct {
	oauth.Error
	place string // file:line:column of a manifest that was sent
}

// NewRefusals remembers the last n refusals.
func NewRefusals(n int) *Refusals {
	n = max(n, 1)
	return &Refusals{most: n, kept: newRing(n), passing: newRing(max(n/passingShare, 1)), byID: make(map[string]*refused)}
}

// Add remembers a refusal, unless it is none: a device is told to go on polling and a proof to use a nonce as a matter
// of course.
func (m *Refusals) Add(r oauth.Refusal) {
	if r.Error.Code == oauth.CodeAuthorizationPending || r.Error.Code == oauth.CodeUseDPoPNonce {
		return
	}
	m.add(r, []reason{{Error: r.Error}})
}

func (m *Refusals) add(r oauth.Refusal, reasons []reason) {
	if r.RequestID == "" {
		return
	}
	kept := keep(r, reasons)
	m.mu.Lock()
	defer m.mu.Unlock()
	to := &m.kept
	if r.Beyond || r.Error.Rule == oauth.RulePathUnknown {
		to = &m.passing
	}
	for to.count == len(to.all) || to.count > 0 && to.bytes+kept.size > to.mostBytes {
		if oldest := to.forget(); m.byID[oldest.RequestID] == oldest {
			delete(m.byID, oldest.RequestID)
		}
	}
	to.all[(to.first+to.count)%len(to.all)] = kept
	to.count++
	to.bytes += kept.size
	m.byID[kept.RequestID] = kept
}

// forget drops the oldest.
func (g *ring) forget() *refused {
	oldest := g.all[g.first]
	g.all[g.first] = nil
	g.first = (g.first + 1) % len(g.all)
	g.count--
	g.bytes -= oldest.size
	return oldest
}

// Find looks up the refusal of a request.
func (m *Refusals) Find(requestID string) (oauth.Refusal, bool) {
	found, known := m.find(requestID)
	if !known {
		return oauth.Refusal{}, false
	}
	return found.Refusal, true
}

// find returns what is kept, which must not be modified.
func (m *Refusals) find(requestID string) (*refused, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, known := m.byID[requestID]
	return found, known
}

// keep makes a copy that is short and holds no credential.
func keep(r oauth.Refusal, reasons []reason) *refused {
	k := &refused{Refusal: r, more: max(len(reasons)-maxReasons, 0)}
	for _, field := range []*string{&k.RequestID, &k.Endpoint, &k.ClientID, &k.App} {
		*field = k.short(*field, maxShort)
	}
	k.Params = make(map[string]string, len(r.Params))
	for name, value := range r.Params {
		k.Params[k.short(name, maxShort)] = k.short(value, maxText)
	}
	for _, why := range reasons[:len(reasons)-k.more] {
		for _, field := range []*string{&why.Code, &why.Rule, &why.Where} {
			*field = k.short(*field, maxShort)
		}
		for _, field := range []*string{&why.Description, &why.Asked, &why.Nearest, &why.place} {
			*field = k.short(*field, maxText)
		}
		k.reasons = append(k.reasons, why)
	}
	if len(k.reasons) > 0 {
		k.Error = k.reasons[0].Error
	}
	const structs = 256 // of each reason, and of the rest together
	k.size += structs * (1 + len(k.reasons) + len(k.Params))
	return k
}

// short blanks credentials, cuts text to at most n bytes, and counts them. The copy holds on to nothing of the request.
func (k *refused) short(text string, n int) string {
	if len(text) > 2*n { // nobody reads that far, and searching costs time
		text = text[:2*n]
	}
	text = oauth.Redact(text)
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n-3], "") + "..."
	}
	k.size += len(text)
	return strings.Clone(text)
}

// placeOf is file:line:column, as editors and terminals make it clickable.
func placeOf(file string, line, column int) string {
	if line == 0 {
		return file
	}
	return file + ":" + strconv.Itoa(line) + ":" + strconv.Itoa(column)
}
