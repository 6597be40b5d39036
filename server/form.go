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

// decoder reads forms into the message types of package oidc, and knows them by their tags. It keeps what it has learnt of a type.
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

// bodyForm reads the parameters of a request from its body: a form, or a JSON object of strings. Parameters without a value
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
		return nil, invalidRequest(oauth.RuleContentType, "Content-Type must be application/x-www-form-urlencoded or application/json")
	}
	return onceEach(form)
}

// typeForm is the media type of a form.
const typeForm = "application/x-www-form-urlencoded"

// readBody reads a body that is not too large, into as much memory as it says to need.
func readBody(r *http.Request) ([]byte, error) {
	var body bytes.Buffer
	if r.ContentLength > 0 && r.ContentLength <= maxBody {
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := body.ReadFrom(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &statusError{http.StatusRequestEntityTooLarge, invalidRequest(oauth.RuleRequestTooLong, "the body is larger than 64 KiB")}
	case err != nil:
		return nil, invalidRequest(oauth.RuleBodyMalformed, "the body could not be read")
	}
	return body.Bytes(), nil
}

// severalTimes are the parameters that may come more than once (RFC 8707 section 2, RFC 8693 section 2.1).
var severalTimes = []string{"resource", "audience"}

// onceEach drops parameters without a value and refuses those that come more than once.
func onceEach(form url.Values) (url.Values, error) {
	for name, values := range form {
		if len(values) > 1 && !slices.Contains(severalTimes, name) {
			return nil, invalidRequest(oauth.RuleParameterRepeated, "a parameter comes more than once")
		}
		for _, value := range values {
			if !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
				return nil, invalidRequest(oauth.RuleParameterMalformed, "a parameter is not text")
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

// jsonForm reads one flat JSON object of strings, each name once: who needs several resources sends a form.
func jsonForm(body []byte) (url.Values, error) {
	bad := invalidRequest(oauth.RuleBodyMalformed, "the body must be one JSON object whose values are strings")
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, bad
	}
	form := url.Values{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, bad
		}
		value, err := dec.Token()
		if err != nil {
			return nil, bad
		}
		text, ok := value.(string)
		if !ok {
			return nil, bad
		}
		if form.Has(name.(string)) {
			return nil, invalidRequest(oauth.RuleParameterRepeated, "a parameter comes more than once")
		}
		form.Set(name.(string), text)
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('}') {
		return nil, bad
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad
	}
	return form, nil
}
