package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zitadel/schema"

	"github.com/warifu/warifu/server/oauth"
)

// decoder reads forms into the message types of package oidc, and knows them by their tags. It keeps what it has learnt
// of a type.
var decoder = func() *schema.Decoder {
	d := schema.NewDecoder()
	d.IgnoreUnknownKeys(true)
	return d
}()

// decode reads a form into a message type of package oidc.
func decode[T any](form url.Values) (*T, error) {
	message := new(T)
	if err := decoder.Decode(message, form); err != nil {
		return nil, invalidRequest(oauth.RuleParameterMalformed, "a parameter cannot be read")
	}
	return message, nil
}

// bodyForm reads the parameters of a request from its body: a form, or a JSON object. Parameters without a value
// count as omitted; one that comes twice, or in the query, makes the request invalid (RFC 6749 section 3.2).
func bodyForm(r *http.Request) (url.Values, error) {
	if r.URL.RawQuery != "" {
		return nil, invalidRequest(oauth.RuleParameterInQuery, "send parameters in the body, not in the query")
	}
	contentType := r.Header.Get("Content-Type")
	if contentType != typeForm {
		var err error
		if contentType, _, err = mime.ParseMediaType(contentType); err != nil {
			contentType = ""
		}
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var form url.Values
	switch contentType {
	case typeForm:
		if form, err = url.ParseQuery(string(body)); err != nil {
			return nil, invalidRequest(oauth.RuleBodyMalformed, "the body is not a well-formed form")
		}
	case "application/json":
		if form, err = jsonForm(body); err != nil {
			return nil, err
		}
	default:
		return nil, invalidRequest(oauth.RuleContentType,
			"Content-Type must be application/x-www-form-urlencoded or application/json")
	}
	return onceEach(form)
}

// typeForm is the media type of a form.
const typeForm = "application/x-www-form-urlencoded"

// requestBody is what came with a request, read to its end before the request is served.
type requestBody struct {
	bytes.Reader
	text []byte
	err  error // why the rest could not be read, after text
}

// Read is [io.Reader].
func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) && b.err != nil {
		err = b.err
	}
	return n, err
}

// Close is [io.Closer]: the http.Server closes what was read.
func (b *requestBody) Close() error { return nil }

// readAhead reads the body of a request, if it is not too large. It takes memory for what has come, not for what is
// said to come. It reports false when too many bodies are arriving.
func (s *Server) readAhead(w http.ResponseWriter, r *http.Request) bool {
	if r.Body == nil || r.ContentLength == 0 {
		r.Body = http.NoBody
		return true
	}
	from, most := networkOf(s.addressOf(r)), maxBody
	if strings.HasPrefix(r.URL.Path, s.base+pathCallback) {
		most = maxAnswer
	}
	if !s.arrivals.begin(from, most/maxBody) {
		return false
	}
	defer s.arrivals.end(from, most/maxBody)
	b := new(requestBody)
	const usual = 4 << 10
	if r.ContentLength > 0 && r.ContentLength <= usual { // no body is longer than it said
		b.text = make([]byte, r.ContentLength)
		n, err := io.ReadFull(r.Body, b.text)
		b.text, b.err = b.text[:n], err
	} else {
		var text bytes.Buffer
		text.Grow(usual)
		_, b.err = text.ReadFrom(http.MaxBytesReader(w, r.Body, int64(most)))
		b.text = text.Bytes()
	}
	b.Reset(b.text)
	r.Body = b
	return true
}

// readBody is the body of a request, if it is not too large.
func readBody(r *http.Request) ([]byte, error) {
	read, ahead := r.Body.(*requestBody)
	if !ahead {
		return nil, nil
	}
	_, tooLarge := errors.AsType[*http.MaxBytesError](read.err)
	switch {
	case tooLarge:
		return nil, &statusError{http.StatusRequestEntityTooLarge, invalidRequest(oauth.RuleRequestTooLong,
			"the body is larger than 64 KiB")}
	case read.err != nil:
		return nil, invalidRequest(oauth.RuleBodyMalformed, "the body could not be read")
	}
	return read.text, nil
}

// severalTimes are the parameters that may come more than once (RFC 8707 section 2, RFC 8693 section 2.1).
var severalTimes = []string{"resource", "audience"}

func repeated(name string) *oauth.Error {
	return invalidRequest(oauth.RuleParameterRepeated, "a parameter comes more than once: "+oauth.Printable(name))
}

// onceEach drops parameters without a value and refuses those that come more than once.
func onceEach(form url.Values) (url.Values, error) {
	for name, values := range form {
		if len(values) > 1 && !slices.Contains(severalTimes, name) {
			return nil, repeated(name)
		}
		for _, value := range values {
			if !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
				return nil, invalidRequest(oauth.RuleParameterMalformed, "a parameter is not text: "+oauth.Printable(name))
			}
		}
		if values = slices.DeleteFunc(values, func(value string) bool { return value == "" }); len(values) == 0 {
			delete(form, name)
		} else {
			form[name] = values
		}
	}
	return form, nil
}

// jsonForm reads the parameters in one JSON object, each name once. A byte order mark before it is ignored (RFC 8259
// section 8.1), and no body at all is no parameters.
func jsonForm(body []byte) (url.Values, error) {
	bad := invalidRequest(oauth.RuleBodyMalformed, "the body must be one JSON object")
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	form := url.Values{}
	if len(body) == 0 {
		return form, nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, bad
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, bad
		}
		name, value := t.(string), json.RawMessage(nil) // the token before a value is its name
		if dec.Decode(&value) != nil {
			return nil, bad
		}
		if form.Has(name) {
			return nil, repeated(name)
		}
		form[name] = jsonValues(name, value)
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return nil, bad
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad
	}
	return form, nil
}

// jsonValues are the values of a parameter that is a member of a JSON object. What JSON clients send means what a form
// would say: a list is a parameter that comes several times, or one text with spaces where the parameter is such a
// list; a number or a flag is its text; null is nothing, like an empty value. An object, such as that of claims, is its
// own text. Request objects are read strictly instead ([paramOf]): RFC 9101 section 4 says how.
func jsonValues(name string, value json.RawMessage) []string {
	var values []string
	var items []json.RawMessage
	if value[0] != '[' {
		items = []json.RawMessage{value}
	} else if json.Unmarshal(value, &items) != nil || slices.ContainsFunc(items, composed) {
		return []string{string(value)}
	}
	for _, item := range items {
		var text string
		switch {
		case string(item) == "null":
			continue
		case json.Unmarshal(item, &text) != nil:
			text = string(item)
		}
		values = append(values, text)
	}
	if slices.Contains(spaced, name) && len(values) > 1 {
		return []string{strings.Join(values, " ")}
	}
	return values
}

// composed reports whether a JSON value has parts.
func composed(value json.RawMessage) bool { return value[0] == '[' || value[0] == '{' }

// spaced are the parameters whose value is a list with spaces between (RFC 6749 sections 3.1.1 and 3.3, OpenID Connect
// Core 1.0 section 3.1.2.1).
var spaced = []string{"scope", "response_type", "prompt", "ui_locales", "claims_locales", "acr_values"}
