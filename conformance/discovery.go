package conformance

import (
	"net/url"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

func configModules() []Module {
	return []Module{
		{"oidcc-discovery-endpoint-verification", "metadata and keys are as they must be", verifyMetadata},
	}
}

// verifyMetadata checks discovery (OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2). A provider with dynamic
// registration must offer more.
func verifyMetadata(t *trial) {
	dynamic := t.plan.Dynamic
	u, err := url.Parse(t.cfg.Issuer)
	t.check(err == nil && u.Scheme == "https" && u.RawQuery == "" && u.Fragment == "" && u.User == nil, "RFC8414-2",
		"the issuer is an https URL without query and fragment")
	m := t.fetchMetadata()
	t.check(m.text("issuer") == t.cfg.Issuer, "OIDCD-4.3", "issuer, %q, is the one that was asked", m.text("issuer"))
	t.types(m)
	t.known(m)
	t.endpoints(m)
	t.offers(m, "response_types_supported", "OIDCD-3", true)
	types, _ := m.list("response_types_supported")
	for i, v := range types {
		words := strings.Fields(v)
		slices.Sort(words)
		types[i] = strings.Join(words, " ")
	}
	wanted := []string{"code", "id_token", "id_token token"}
	if dynamic {
		for _, v := range wanted {
			t.check(slices.Contains(types, v), "OIDCC-15.2",
				"response_types_supported has %q, which dynamic providers must offer", v)
		}
	} else {
		some := slices.ContainsFunc(types, func(v string) bool {
			return slices.Contains([]string{"code", "code id_token", "id_token", "id_token token", "code id_token token",
				"code token"}, v)
		})
		t.check(some, "OIDCC-3", "response_types_supported has a type of OpenID Connect")
	}
	t.offers(m, "subject_types_supported", "OIDCD-3", true)
	t.check(m.lists("subject_types_supported", "public") || m.lists("subject_types_supported", "pairwise"), "OIDCD-3",
		"subject_types_supported has public or pairwise")
	t.check(m.lists("id_token_signing_alg_values_supported", "RS256"), "OIDCD-3",
		"id_token_signing_alg_values_supported has RS256")
	if _, given := m["request_object_signing_alg_values_supported"]; given {
		t.should(m.lists("request_object_signing_alg_values_supported", "RS256"), "OIDCD-3",
			"request_object_signing_alg_values_supported has RS256")
	}
	if grants, given := m["grant_types_supported"]; given {
		list, ok := m.list("grant_types_supported")
		t.check(ok && len(list) > 0, "OIDCD-3", "grant_types_supported, %v, is a list with entries", grants)
		if dynamic {
			t.check(slices.Contains(list, "authorization_code") && slices.Contains(list, "implicit"), "OIDCD-3",
				"grant_types_supported has authorization_code and implicit, which dynamic providers must offer")
		}
	}
	t.offers(m, "claims_supported", "OIDCD-3", false)
	t.offers(m, "scopes_supported", "OIDCD-3", false)
	if scopes, given := m.list("scopes_supported"); given {
		t.check(slices.Contains(scopes, "openid"), "OIDCD-3", "scopes_supported has openid")
		for _, s := range scopes {
			bad := s == "" || strings.ContainsFunc(s, func(r rune) bool {
				return r <= 0x20 || r > 0x7E || r == '"' || r == '\\'
			})
			t.check(!bad, "RFC6749-3.3", "%q is a scope", s)
		}
	}
	for _, name := range []string{"ui_locales_supported", "claims_locales_supported"} {
		locales, _ := m.list(name)
		for _, l := range locales {
			tag, err := language.Parse(l)
			t.check(err == nil, "RFC8414-2", "%q in %s is a language tag", l, name)
			t.should(err == nil && tag.String() == l, "RFC5646-2.1.1", "%q in %s is written as usual", l, name)
		}
	}
	t.fetchKeys(m)
}

// offers checks that a list is there and has entries; one that is only recommended is warned of.
func (t *trial) offers(m metadata, name, ref string, required bool) {
	list, ok := m.list(name)
	if _, given := m[name]; !given && !required {
		t.warnf(ref, "metadata should have %s", name)
		return
	}
	t.check(ok && len(list) > 0, ref, "%s is a list with entries", name)
}

// Members of metadata by type, from the registry of OAuth authorization server metadata (RFC 8414 section 7.1).
var (
	textMembers = []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "registration_endpoint",
		"userinfo_endpoint", "service_documentation", "op_policy_uri", "op_tos_uri", "revocation_endpoint",
		"introspection_endpoint", "end_session_endpoint", "check_session_iframe", "pushed_authorization_request_endpoint",
		"device_authorization_endpoint", "backchannel_authentication_endpoint", "signed_metadata"}
	listMembers = []string{"scopes_supported", "response_types_supported", "response_modes_supported",
		"grant_types_supported", "token_endpoint_auth_methods_supported",
		"token_endpoint_auth_signing_alg_values_supported", "ui_locales_supported",
		"revocation_endpoint_auth_methods_supported", "revocation_endpoint_auth_signing_alg_values_supported",
		"introspection_endpoint_auth_methods_supported", "introspection_endpoint_auth_signing_alg_values_supported",
		"code_challenge_methods_supported", "subject_types_supported", "id_token_signing_alg_values_supported",
		"id_token_encryption_alg_values_supported", "id_token_encryption_enc_values_supported",
		"userinfo_signing_alg_values_supported", "userinfo_encryption_alg_values_supported",
		"userinfo_encryption_enc_values_supported", "request_object_signing_alg_values_supported",
		"request_object_encryption_alg_values_supported", "request_object_encryption_enc_values_supported",
		"display_values_supported", "claim_types_supported", "claims_supported", "claims_locales_supported",
		"acr_values_supported", "dpop_signing_alg_values_supported", "authorization_details_types_supported",
		"backchannel_token_delivery_modes_supported", "backchannel_authentication_request_signing_alg_values_supported",
		"authorization_signing_alg_values_supported", "authorization_encryption_alg_values_supported",
		"authorization_encryption_enc_values_supported", "introspection_signing_alg_values_supported",
		"introspection_encryption_alg_values_supported", "introspection_encryption_enc_values_supported",
		"prompt_values_supported"}
	flagMembers = []string{"claims_parameter_supported", "request_parameter_supported", "request_uri_parameter_supported",
		"require_request_uri_registration", "frontchannel_logout_supported", "frontchannel_logout_session_supported",
		"backchannel_logout_supported", "backchannel_logout_session_supported", "require_pushed_authorization_requests",
		"backchannel_user_code_parameter_supported", "tls_client_certificate_bound_access_tokens",
		"authorization_response_iss_parameter_supported", "require_signed_request_object",
		"client_id_metadata_document_supported"}
	objectMembers = []string{"mtls_endpoint_aliases"}
)

// types checks that each member is of its type.
func (t *trial) types(m metadata) {
	for name, value := range m {
		ok := true
		switch {
		case slices.Contains(textMembers, name):
			_, ok = value.(string)
		case slices.Contains(listMembers, name):
			_, ok = m.list(name)
		case slices.Contains(flagMembers, name):
			_, ok = value.(bool)
		case slices.Contains(objectMembers, name):
			_, ok = value.(map[string]any)
		}
		t.check(ok, "RFC8414-2", "%s is of its type", name)
	}
}

// known warns of members that nobody has registered.
func (t *trial) known(m metadata) {
	all := slices.Concat(textMembers, listMembers, flagMembers, objectMembers)
	for name := range m {
		t.should(slices.Contains(all, name), "RFC8414-2", "%s is a member that is defined somewhere", name)
	}
}

// endpoints checks that all are https, and those that there must be are there.
func (t *trial) endpoints(m metadata) {
	for _, name := range []string{"authorization_endpoint", "token_endpoint", "jwks_uri"} {
		t.check(m.text(name) != "", "OIDCD-3", "metadata has %s", name)
	}
	t.should(m.text("userinfo_endpoint") != "", "OIDCD-3", "metadata has userinfo_endpoint")
	for name := range m {
		if strings.HasSuffix(name, "_endpoint") || name == "jwks_uri" {
			u, err := url.Parse(m.text(name))
			t.check(err == nil && u.Scheme == "https" && u.Host != "" && u.Fragment == "", "OIDCD-3", "%s, %q, is an https URL",
				name, m.text(name))
		}
	}
}
