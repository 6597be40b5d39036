package factor

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Costs check passwords so that how long a wrong one takes says nothing of whose it is, nor whether anybody has that
// name: whatever the hash is, the work is done that any other would have taken, too. The zero value knows no hashes.
type Costs struct {
	mu    sync.RWMutex // guards the rest
	cost  int          // the highest of bcrypt, 0 for none
	argon []string     // what the hashes of argon2id begin with: version and parameters
}

// mostArgon are the kinds of hashes of argon2id that are remembered: ours, and those that came from elsewhere until
// their users sign in.
const mostArgon = 4

// Know takes note of a hash that somebody has.
func (c *Costs) Know(hash string) {
	cost, argon := kindOf(hash)
	c.mu.RLock()
	known := cost <= c.cost && (argon == "" || slices.Contains(c.argon, argon))
	c.mu.RUnlock()
	if known {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cost = max(c.cost, cost)
	if argon != "" && !slices.Contains(c.argon, argon) && len(c.argon) < mostArgon {
		c.argon = append(c.argon, argon)
	}
}

// KnowOurs takes note of the hashes that [HashPassword] makes.
func (c *Costs) KnowOurs() { c.Know(argonKind(argonMemory, argonPasses, argonThreads) + noArgon) }

// argonKind is what hashes of argon2id begin with.
func argonKind(memory, passes uint32, threads uint8) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, memory, passes, threads)
}

// kindOf is what a hash costs: one of bcrypt by its cost, one of argon2id by its parameters.
func kindOf(hash string) (cost int, argon string) {
	if h, err := parseArgon(hash); err == nil {
		return 0, argonKind(h.memory, h.passes, h.threads)
	}
	cost, _ = bcrypt.Cost([]byte(hash)) // 0 for what is no hash
	return cost, ""
}

// Nobody has these: what a hash costs does not depend on its salt and sum.
var (
	noBcrypt = strings.Repeat(".", 53)
	noArgon  = phcText.EncodeToString(make([]byte, 16)) + "$" + phcText.EncodeToString(make([]byte, argonLen))
)

func bcryptOfNobody(cost int) string { return fmt.Sprintf("$2a$%02d$%s", cost, noBcrypt) }

// Check is [CheckPassword], for a hash that somebody has, or for "", which nobody has. A wrong password takes as long
// as all kinds of hashes together.
//
// After a hash of bcrypt of a lower cost c come those of c, c+1, and so on, because 2^c + (2^c + ... + 2^(highest-1)) =
// 2^highest.
func (c *Costs) Check(hash, password string) (right, stale bool) {
	if hash != "" {
		c.Know(hash)
		if right, stale = CheckPassword(hash, password); right {
			return right, stale
		}
	}
	c.mu.RLock()
	highest, kinds := c.cost, slices.Clone(c.argon)
	c.mu.RUnlock()
	cost, done := kindOf(hash)
	switch {
	case cost > 0:
		for ; cost < highest; cost++ {
			CheckPassword(bcryptOfNobody(cost), password)
		}
	case highest > 0:
		CheckPassword(bcryptOfNobody(highest), password)
	}
	for _, kind := range kinds {
		if kind != done {
			CheckPassword(kind+noArgon, password)
		}
	}
	return false, false
}

// Takes is how long a wrong password takes on this machine.
func (c *Costs) Takes() time.Duration {
	begun := time.Now()
	c.Check("", "nobody has this")
	return time.Since(begun)
}
