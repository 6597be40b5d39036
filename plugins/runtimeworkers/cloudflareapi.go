package runtimeworkers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/warifu/warifu/plugins"
)

const (
	// The most that is read of an answer, bytes.
	maxAnswer = 4 << 20
	// One call.
	callLimit = 20 * time.Second
	// What a rate limit without Retry-After costs. The published limit is 1,200
	// calls in five minutes.
	defaultRetryAfter, maxRetryAfter = time.Minute, time.Hour
)

// Error codes of the API that mean that the newest version of a script is not the
// deployed one: writing a secret would deploy it.
var pendingVersion = map[int]bool{10214: true, 10215: true}

// Error codes for a script that is not there.
var noScript = map[int]bool{10007: true, 10090: true}

// api is the calls of Cloudflare's API that the driver makes.
type api struct {
	base      string // https://api.cloudflare.com/client/v4
	account   string
	tokenFile string // read for each call, so that a new token needs no restart
	client    *http.Client

	mu        sync.Mutex // owns what follows
	notBefore time.Time  // a rate limit ends
}

// apiError is a refusal in the API's words, without values.
type apiError struct {
	status int
	codes  []int
	text   string
}

func (e *apiError) Error() string {
	return fmt.Sprintf("cloudflare answered %d: %s", e.status, e.text)
}

func (e *apiError) has(codes map[int]bool) bool {
	for _, code := range e.codes {
		if codes[code] {
			return true
		}
	}
	return false
}

// rateLimited is the refusal of a call that was one too many, made or not.
func rateLimited(wait time.Duration) *apiError {
	return &apiError{status: http.StatusTooManyRequests,
		text: "its rate limit is reached, it ends in " + max(wait.Round(time.Second), time.Second).String()}
}

// envelope is around every answer.
type envelope struct {
	Success bool `json:"success"`
	Errors  []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
	Result json.RawMessage `json:"result"`
}

// secret is a binding as it is written. It comes back without Text.
type secret struct {
	Name string `json:"name"`
	Text string `json:"text,omitempty"`
	Type string `json:"type"`
}

// secretText writes an empty value too.
type secretText struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Type string `json:"type"`
}

// patchSecrets writes the secrets in set and deletes those in unset, in one new
// version that is deployed at once. Others stay. The error of an attempt that may
// have happened wraps ErrUnavailable.
func (a *api) patchSecrets(ctx context.Context, script string, set map[string]string, unset []string,
	tags map[string]string) error {
	secrets := map[string]*secretText{}
	values := make([]string, 0, len(set))
	for name, value := range set {
		secrets[name] = &secretText{Name: name, Text: value, Type: "secret_text"}
		values = append(values, value)
	}
	for _, name := range unset {
		secrets[name] = nil // JSON Merge Patch, RFC 7396: null deletes
	}
	body := struct {
		Secrets     map[string]*secretText `json:"secrets"`
		VersionTags map[string]string      `json:"version_tags,omitempty"`
	}{secrets, tags}
	_, err := a.call(ctx, http.MethodPatch, a.script(script)+"/secrets-bulk", body, newScrubber(values...))
	return err
}

// secretNames gives the names of all secrets of a script, others' as well.
func (a *api) secretNames(ctx context.Context, script string) (map[string]bool, error) {
	answer, err := a.call(ctx, http.MethodGet, a.script(script)+"/secrets", nil, newScrubber())
	if err != nil {
		return nil, err
	}
	var secrets []secret
	if err := json.Unmarshal(answer.Result, &secrets); err != nil {
		return nil, fmt.Errorf("%w: cloudflare's list of secrets cannot be read", plugins.ErrUnavailable)
	}
	names := map[string]bool{}
	for _, s := range secrets {
		if s.Type == "secret_text" {
			names[s.Name] = true
		}
	}
	return names, nil
}

// deployed gives the versions that serve now. More than one is a gradual
// deployment; none, a script that was never deployed.
func (a *api) deployed(ctx context.Context, script string) ([]string, error) {
	answer, err := a.call(ctx, http.MethodGet, a.script(script)+"/deployments", nil, newScrubber())
	if err != nil {
		return nil, err
	}
	var result struct {
		Deployments []struct {
			Versions []struct {
				VersionID string `json:"version_id"`
			} `json:"versions"`
		} `json:"deployments"`
	}
	if err := json.Unmarshal(answer.Result, &result); err != nil {
		return nil, fmt.Errorf("%w: cloudflare's list of deployments cannot be read", plugins.ErrUnavailable)
	}
	if len(result.Deployments) == 0 {
		return nil, nil
	}
	var versions []string
	for _, v := range result.Deployments[0].Versions { // the first is the one that serves
		versions = append(versions, v.VersionID)
	}
	return versions, nil
}

func (a *api) script(name string) string {
	return "/accounts/" + url.PathEscape(a.account) + "/workers/scripts/" + url.PathEscape(name)
}

// call makes one request, and no second one: a write whose answer is lost may
// have happened.
func (a *api) call(ctx context.Context, method, path string, body any, scrub scrubber) (envelope, error) {
	if wait := a.limited(); wait > 0 {
		return envelope{}, rateLimited(wait)
	}
	token, err := os.ReadFile(a.tokenFile)
	if err != nil {
		return envelope{}, fmt.Errorf("%w: read the API token: %w", plugins.ErrUnavailable, err)
	}
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return envelope{}, fmt.Errorf("write the request: %w", err)
		}
		payload = bytes.NewReader(text)
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, payload)
	if err != nil {
		return envelope{}, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("User-Agent", "warifu")
	if body != nil {
		req.Header.Set("Content-Type", "application/merge-patch+json")
		req.GetBody = nil // nothing below sends it twice
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return envelope{}, fmt.Errorf("%w: cloudflare cannot be reached: %s", plugins.ErrUnavailable, transportError(err))
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return envelope{}, fmt.Errorf("%w: cloudflare's answer broke off", plugins.ErrUnavailable)
	}
	return a.read(resp, text, scrub)
}

// transportError is the error below net/http's, without the address.
func transportError(err error) string {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	return err.Error()
}

func (a *api) read(resp *http.Response, text []byte, scrub scrubber) (envelope, error) {
	if resp.StatusCode == http.StatusTooManyRequests {
		return envelope{}, rateLimited(a.hold(resp.Header.Get("Retry-After")))
	}
	var answer envelope
	err := json.Unmarshal(text, &answer)
	switch {
	case resp.StatusCode >= 500:
		return envelope{}, fmt.Errorf("%w: cloudflare answered %d", plugins.ErrUnavailable, resp.StatusCode)
	case err != nil:
		return envelope{}, fmt.Errorf("%w: cloudflare answered %d without its envelope", plugins.ErrUnavailable,
			resp.StatusCode)
	case resp.StatusCode/100 == 2 && answer.Success:
		return answer, nil
	}
	refusal := &apiError{status: resp.StatusCode}
	var words []string
	for _, e := range answer.Errors {
		refusal.codes = append(refusal.codes, e.Code)
		words = append(words, fmt.Sprintf("%s (code %d)", e.Message, e.Code))
	}
	refusal.text = scrub.clean(strings.Join(words, "; "), maxQuoted)
	if refusal.text == "" {
		refusal.text = "without a reason"
	}
	return envelope{}, refusal
}

// limited gives how long a rate limit lasts still.
func (a *api) limited() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Until(a.notBefore)
}

// hold keeps all calls back for what Retry-After says, RFC 9110 section 10.2.3.
func (a *api) hold(retryAfter string) time.Duration {
	wait := defaultRetryAfter
	if seconds, err := strconv.Atoi(retryAfter); err == nil && seconds >= 0 {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(retryAfter); err == nil {
		wait = max(time.Until(at), 0)
	}
	wait = min(wait, maxRetryAfter)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notBefore = time.Now().Add(wait)
	return wait
}
