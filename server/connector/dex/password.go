package dex

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode"

	dex "github.com/dexidp/dex/connector"
	"golang.org/x/text/unicode/norm"

	"github.com/warifu/warifu/server/connector"
)

// wrongTakes is the time at whose multiples a wrong password is answered: a name that nobody has is refused after less
// work than one that somebody has, and nobody is to learn which it was.
const wrongTakes = 500 * time.Millisecond

// passwordKind is how one kind of Dex's PasswordConnectors is made, beside its configuration.
type passwordKind[C opener] struct {
	// check says what is wrong with a configuration: what Open would refuse, and what would go wrong later.
	check func(c C, s Spec, r *report)
	// open makes the connector, if it is not Dex's code.
	open func(c C) (dex.Connector, error)
	// prompt is what the configuration calls the name that people type; nil for the usual words.
	prompt func(c C) string
	// negotiates: the configuration also takes tickets; nil for no.
	negotiates func(c C) bool
	// unfit are characters that no name has, because Dex's code cannot pass them on.
	unfit string
	// wrong: such an error of a sign-in means that name or password are wrong; nil for none.
	wrong func(text string) bool
	// told: wrong alone tells of wrong passwords; what else is not right is an answer that is not understood.
	told bool
	// stands is that of [refresher].
	stands func(ctx context.Context, c C, userID string) error
}

func (k passwordKind[C]) build(s Spec, config any) (connector.Connector, []Fault) {
	c := config.(C)
	var r report
	k.check(c, s, &r)
	if len(r.faults) > 0 {
		return connector.Connector{}, r.faults
	}
	open := func(context.Context) (dex.Connector, error) {
		if k.open != nil {
			return k.open(c)
		}
		return reopened(s, c, "")
	}
	p := password{
		upstream: newUpstream(open),
		id:       s.ID, unfit: k.unfit, wrong: k.wrong, told: k.told,
	}
	p.refresher = refresher{upstream: p.upstream, scopes: scopesOf(s)}
	if k.stands != nil {
		p.stands = func(ctx context.Context, userID string) error { return k.stands(ctx, c, userID) }
	}
	made := connector.Connector{ID: s.ID, Ask: s.Ask, Password: p}
	if k.prompt != nil {
		made.Prompt = k.prompt(c)
	}
	if k.negotiates != nil && k.negotiates(c) {
		made.Password = negotiating{p}
	}
	return made, nil
}

// password is a PasswordConnector of Dex.
type password struct {
	*upstream
	refresher
	id    string
	unfit string
	wrong func(text string) bool
	told  bool
}

// Login is [connector.Password.Login].
func (p password) Login(ctx context.Context, login, secret string) (connector.Identity, bool, error) {
	type answer struct {
		who   dex.Identity
		right bool
	}
	began := time.Now()
	unfit := strings.ContainsAny(login, p.unfit) || strings.ContainsFunc(login, unicode.IsControl)
	if login == "" || secret == "" || unfit {
		return connector.Identity{}, false, waitForWrong(ctx, began)
	}
	a, err := call(ctx, p.upstream, func(ctx context.Context, conn dex.Connector) (answer, error) {
		opened, is := conn.(dex.PasswordConnector)
		if !is {
			return answer{}, plain{errors.New("the connector takes no passwords")}
		}
		who, right, err := opened.Login(clientContext(ctx, nil), p.scopes, login, secret)
		return answer{who, right}, err
	})
	switch {
	case err != nil && p.wrong != nil && p.wrong(err.Error()):
		a.right = false
	case err != nil:
		return connector.Identity{}, false, judged(err, signingIn)
	case !a.right && p.told:
		return connector.Identity{}, false, plain{errors.New("checking the password: the answer is not understood")}
	}
	if !a.right {
		return connector.Identity{}, false, waitForWrong(ctx, began)
	}
	who, err := p.askable(a.who)
	return who, err == nil, err
}

// waitForWrong waits until a wrong password is answered. That somebody does not wait for it is no error of ours.
func waitForWrong(ctx context.Context, began time.Time) error {
	took := time.Since(began)
	timer := time.NewTimer(wrongTakes - took%wrongTakes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// User is [connector.Password.User]: who has a name is known only when they sign in.
func (p password) User(string) (string, bool) { return "", false }

// Account is [connector.Password.Account]. Directories take names that differ in case, in spaces, or in characters that
// are not seen, for the same (RFC 4518), so guesses at all of them are guesses at one.
func (p password) Account(login string) string {
	seen := strings.Map(func(c rune) rune {
		if unicode.In(c, unicode.Cf, unicode.Mn) {
			return -1
		}
		return c
	}, norm.NFKD.String(login))
	return "connector:" + p.id + ":" + strings.ToLower(strings.Join(strings.Fields(seen), " "))
}

// negotiating is a connector that takes tickets as well.
type negotiating struct{ password }

// Negotiate is [connector.Negotiator.Negotiate].
func (n negotiating) Negotiate(
	ctx context.Context, w http.ResponseWriter, r *http.Request,
) (*connector.Identity, bool, error) {
	type answer struct {
		who   *dex.Identity
		done  bool
		reply *reply
	}
	a, err := call(ctx, n.upstream, func(ctx context.Context, conn dex.Connector) (answer, error) {
		opened, is := conn.(dex.SPNEGOAware)
		if !is {
			return answer{}, nil
		}
		a := answer{reply: &reply{header: http.Header{}, status: http.StatusOK}}
		who, done, err := opened.TrySPNEGO(ctx, n.scopes, a.reply, r.Clone(ctx))
		a.who, a.done = who, bool(done)
		return a, err
	})
	if err != nil {
		return nil, false, judged(err, signingIn)
	}
	if a.reply != nil {
		for name, values := range a.reply.header {
			for _, value := range values {
				w.Header().Add(name, value)
			}
		}
	}
	switch {
	case !a.done:
		return nil, false, nil
	case a.who == nil:
		w.WriteHeader(a.reply.status)
		_, _ = w.Write(a.reply.body.Bytes())
		return nil, true, nil
	}
	who, err := n.askable(*a.who)
	if err != nil {
		return nil, false, err
	}
	return &who, true, nil
}

// reply keeps an answer until it is known whether it is to be given.
type reply struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *reply) Header() http.Header         { return r.header }
func (r *reply) WriteHeader(status int)      { r.status = status }
func (r *reply) Write(p []byte) (int, error) { return r.body.Write(p) }
