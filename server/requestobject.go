package server

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/warifu/warifu/server/oauth"
	"github.com/warifu/warifu/storage"
)

// Request objects: parameters of an authorization request as claims of a JWT, by value (OpenID Connect Core 1.0 section
// 6.1, RFC 9101).
//
// One that is signed is signed with the client's keys, by the algorithm that the client registered, if it did; a client
// that registered none may also send it unsigned, which proves no more than parameters in the query do. A claim wins
// over a parameter of the same name; what is a parameter alone still counts, as OpenID Connect wants it. Not so in a
// pushed request, where the claims are all there is (RFC 9126 section 3). client_id and response_type must be the same
// in both places. Encrypted ones are refused, and so is a JWT that was made for something else.
//
// A client that registers an algorithm says that it signs, and so a signature has to be there, and young: nbf and exp
// are required, nbf at most an hour ago and exp at most an hour after it, so that nobody can use an old request again
// (FAPI 2.0 Message Signing section 5.3.1). Pushing, such a client cannot leave the signature out. At the authorization
// endpoint it can, as OpenID Connect wants it, unless it registered require_signed_request_object (RFC 9101 section
// 10.5). Of a client that registered neither, exp and nbf are checked when they are there: the clients of OpenID
// Connect leave them out.
//
// The address of a request object is never fetched: request_uri is for pushed requests (pushed.go).

// requestObjectTypes are the typ headers of a request object: other JWTs that a client signs are not accepted (RFC 9101
// section 10.8).
var requestObjectTypes = []string{"", "jwt", "oauth-authz-req+jwt", "application/oauth-authz-req+jwt"}

// jwtClaims are about the request object itself; they are no parameters.
var jwtClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}

// longestObject is the age and the life of a request object whose client signs (FAPI 2.0 Message Signing section
// 5.3.1).
const longestObject = time.Hour

func badObject(rule, description string) error {
	return oauth.Refuse(oauth.CodeInvalidRequestObject, rule, "%s", description)
}

// unwrap returns the parameters of a request, with those of its request object. Its error is a refusal, or a fault.
func (s *Server) unwrap(ctx context.Context, c *storage.Client, params url.Values, pushed bool) (url.Values, error) {
	if len(params["request"]) > 1 {
		return params, nil // they are refused as what they are, a parameter that comes more than once
	}
	if params.Get("request") == "" {
		if c.RequireSignedRequestObject || pushed && c.SignsRequests() {
			return nil, invalidRequest(oauth.RuleObjectMissing,
				"this client must send its requests as signed request objects (RFC 9101)").
				About("", "", whereOf(c, "requireSignedRequestObject", "require_signed_request_object"))
		}
		return params, nil
	}
	payload, err := s.openRequestObject(ctx, c, params.Get("request"))
	if err != nil {
		return nil, err
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(payload, &claims); err != nil || claims == nil { // strict: each name once
		return nil, badObject(oauth.RuleObjectMalformed, "the request object is not a JSON object, or a claim comes twice")
	}
	if err := s.checkRequestObject(c, claims); err != nil {
		return nil, err
	}
	merged := url.Values{}
	if !pushed {
		for name, values := range params {
			merged[name] = values
		}
	}
	for name, raw := range claims {
		if slices.Contains(jwtClaims, name) {
			continue
		}
		values, ok := paramOf(raw)
		if !ok {
			return nil, badObject(oauth.RuleObjectClaims,
				"a claim of the request object is not a parameter: "+oauth.Printable(name))
		}
		asked := params.Get(name)
		if name == "client_id" {
			asked = c.ID
		}
		if (name == "client_id" || name == "response_type") && asked != "" && !slices.Equal(values, []string{asked}) {
			return nil, badObject(oauth.RuleObjectClaims, name+" of the request object is not that of the request")
		}
		merged[name] = values
	}
	merged["client_id"] = []string{c.ID}
	delete(merged, "request")
	return merged, nil
}

// openRequestObject gives the claims of a request object, once its signature is known to be good or not due.
func (s *Server) openRequestObject(ctx context.Context, c *storage.Client, object string) ([]byte, error) {
	parts := strings.SplitN(object, ".", 4)
	if len(object) > maxSigned || len(parts) != 3 {
		return nil, badObject(oauth.RuleObjectMalformed,
			"the request object is not a JWT of three parts; encrypted ones are not supported")
	}
	var header struct {
		Algorithm string          `json:"alg"`
		Type      string          `json:"typ"`
		Critical  json.RawMessage `json:"crit"`
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || json.Unmarshal(raw, &header) != nil || header.Critical != nil {
		return nil, badObject(oauth.RuleObjectMalformed,
			"the header of the request object cannot be read, or has critical parts")
	}
	if !slices.Contains(requestObjectTypes, strings.ToLower(header.Type)) {
		return nil, badObject(oauth.RuleObjectMalformed, "the typ of the request object is that of something else")
	}
	algs := oauth.RequestObjectAlgs()
	if pinned := c.RequestObjectSigningAlg; pinned != "" {
		algs = oauth.Within([]string{pinned}, algs)
	} else if c.SignsRequests() {
		algs = oauth.ClientAlgs()
	}
	if !slices.Contains(algs, header.Algorithm) {
		return nil, badObject(oauth.RuleObjectSignature,
			"the request object must be signed by one of "+oauth.JoinScopes(algs))
	}
	if header.Algorithm == oauth.AlgNone {
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil || parts[2] != "" {
			return nil, badObject(oauth.RuleObjectSignature,
				"the header of the request object says that it is unsigned, but it is not an unsigned JWT")
		}
		return payload, nil
	}
	payload, _, err := s.verifySigned(ctx, c, object, []string{header.Algorithm})
	if errors.Is(err, errNotSigned) {
		return nil, badObject(oauth.RuleObjectSignature, "the request object is not signed with a key of the client")
	}
	return payload, err
}

// checkRequestObject checks what a request object says about itself (RFC 9101 section 6.3, RFC 7519 section 4.1).
func (s *Server) checkRequestObject(c *storage.Client, claims map[string]json.RawMessage) error {
	is := func(name, text string) bool {
		var got string
		return json.Unmarshal(claims[name], &got) == nil && got == text
	}
	has := func(name string) bool { return claims[name] != nil }
	var aud audience
	var expires, notBefore float64
	now := float64(s.now().UnixMilli()) / 1000
	dated := c.SignsRequests()
	switch {
	case has("request") || has("request_uri"):
		return badObject(oauth.RuleObjectClaims, "a request object must not hold another one")
	case has("iss") && !is("iss", c.ID):
		return badObject(oauth.RuleObjectClaims, "iss of the request object must be the client_id")
	case is("sub", c.ID):
		return badObject(oauth.RuleObjectClaims,
			"sub of the request object is the client_id, as if it were to authenticate the client")
	case has("aud") && (aud.UnmarshalJSON(claims["aud"]) != nil || !slices.Contains(aud, s.cfg.Issuer)):
		return badObject(oauth.RuleObjectClaims, "aud of the request object must be "+s.cfg.Issuer)
	case has("exp") && (json.Unmarshal(claims["exp"], &expires) != nil || expires <= now):
		return badObject(oauth.RuleObjectClaims, "the request object has expired")
	case has("nbf") && (json.Unmarshal(claims["nbf"], &notBefore) != nil || notBefore > now+clockSkew.Seconds()):
		return badObject(oauth.RuleObjectClaims, "the request object is not valid yet")
	case dated && !(has("exp") && has("nbf")):
		return badObject(oauth.RuleObjectClaims, "the request object must say from when until when it is valid (nbf and exp)")
	case dated && notBefore < now-longestObject.Seconds():
		return badObject(oauth.RuleObjectClaims, "nbf of the request object is more than 60 minutes ago")
	case dated && expires > notBefore+longestObject.Seconds():
		return badObject(oauth.RuleObjectClaims, "exp of the request object is more than 60 minutes after nbf")
	case c.RequireSignedRequestObject && !has("aud"):
		return badObject(oauth.RuleObjectClaims, "aud of the request object is missing: it must be "+s.cfg.Issuer)
	}
	return nil
}

// paramOf is the parameter that a claim stands for: text, a number, JSON for an object, several for a list of texts.
func paramOf(raw json.RawMessage) (values []string, ok bool) {
	if len(raw) == 0 {
		return nil, false
	}
	switch raw[0] {
	case '"':
		values = make([]string, 1)
		return values, json.Unmarshal(raw, &values[0]) == nil
	case '[':
		return values, json.Unmarshal(raw, &values) == nil && len(values) > 0
	case '{', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return []string{string(raw)}, true
	}
	return nil, false
}
