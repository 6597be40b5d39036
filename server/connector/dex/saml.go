package dex

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"

	"github.com/warifu/warifu/server/connector"
)

// samlConfig has the keys of Dex's connector of type saml, and one more.
type samlConfig struct {
	EntityIssuer string `json:"entityIssuer"`
	SSOIssuer    string `json:"ssoIssuer"`
	SSOURL       string `json:"ssoURL"`

	CA                              string `json:"ca"`
	CAData                          []byte `json:"caData"`
	InsecureSkipSignatureValidation bool   `json:"insecureSkipSignatureValidation"`
	// InsecureAcceptSHA1 is not Dex's: signatures with SHA-1 are refused without it.
	InsecureAcceptSHA1 bool `json:"insecureAcceptSHA1"`

	UsernameAttr  string   `json:"usernameAttr"`
	EmailAttr     string   `json:"emailAttr"`
	GroupsAttr    string   `json:"groupsAttr"`
	GroupsDelim   string   `json:"groupsDelim"`
	AllowedGroups []string `json:"allowedGroups"`
	FilterGroups  bool     `json:"filterGroups"`
	RedirectURI   string   `json:"redirectURI"`

	NameIDPolicyFormat string `json:"nameIDPolicyFormat"`
}

const (
	// samlSkew is how far the clocks of the two sides may be apart: Dex's measure.
	samlSkew = 30 * time.Second

	samlAssertions = "urn:oasis:names:tc:SAML:2.0:assertion"
	samlBearer     = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
)

// samlNameIDFormats are what nameIDPolicyFormat can be, in full or from the last colon on.
var samlNameIDFormats = []string{
	"urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
	"urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
	"urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName",
	"urn:oasis:names:tc:SAML:1.1:nameid-format:WindowsDomainQualifiedName",
	"urn:oasis:names:tc:SAML:2.0:nameid-format:encrypted",
	"urn:oasis:names:tc:SAML:2.0:nameid-format:entity",
	"urn:oasis:names:tc:SAML:2.0:nameid-format:kerberos",
	"urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
	"urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
}

// samlConnector signs people in at an identity provider of SAML 2.0: the Web Browser SSO Profile (saml-profiles-2.0-os
// section 4.1), from here alone, with the POST binding both ways. It has the configuration of Dex's connector of this
// kind, and tells the same of the same assertion. What an assertion has to be is crewjam/saml's to say, which reads
// nothing that the signature does not cover; before that, an answer that nobody in good faith sends is turned away
// ([readOutline]). What this asks beyond Dex's:
//
//   - what the profile demands is there: InResponseTo, Recipient, the audience, NotOnOrAfter, an AuthnStatement; an
//     answer that nobody asked for is refused;
//   - there is one assertion, and its issuer is ssoIssuer;
//   - a signature is over the ID of what it signs, and not with SHA-1, unless the configuration says so.
//
// An answer is taken once because the request that it answers is finished once: the caller burns the state, and the ID
// of the request is sealed with it. Assertions cannot be encrypted: that would take a key of this server's.
type samlConnector struct {
	config   samlConfig
	trust    bool
	provider saml.ServiceProvider // its IDPMetadata has no EntityID if ssoIssuer is not set
}

var (
	_ connector.Redirect  = (*samlConnector)(nil)
	_ connector.Describer = (*samlConnector)(nil)
)

func buildSAML(s Spec, config any) (connector.Connector, []Fault) {
	c := &samlConnector{
		config: *config.(*samlConfig), //nolint:forcetypeassert // the table has it from the same row
		trust:  s.TrustUpstream,
	}
	var r report
	if c.check(&r, s); len(r.faults) > 0 {
		return connector.Connector{}, r.faults
	}
	if c.provider.AuthnNameIDFormat == saml.TransientNameIDFormat && s.Logger != nil {
		s.Logger.Warn("nameIDPolicyFormat is transient: whoever signs in is a new person each time", "connector", s.ID)
	}
	return connector.Connector{ID: s.ID, Redirect: c}, nil
}

// check says what is wrong with the configuration, and makes what follows from it.
func (c *samlConnector) check(r *report, s Spec) {
	config := c.config
	r.required("ssoURL", config.SSOURL)
	r.address("ssoURL", config.SSOURL)
	r.required("usernameAttr", config.UsernameAttr)
	r.required("emailAttr", config.EmailAttr)
	if len(config.AllowedGroups) > 0 && config.GroupsAttr == "" {
		r.fault("groupsAttr", "required", "", "is required with allowedGroups: without it nobody is in one of them")
	}
	if config.InsecureSkipSignatureValidation {
		r.fault("insecureSkipSignatureValidation", "value", "", "is not supported here, "+
			"because with it anybody could pose as anybody: give the provider's certificate in ca or caData")
	}
	if s.Ask > 0 {
		r.fault("", "value", "", "is of a type that cannot be asked again about its users: leave refreshUpstream out")
	}
	callback := r.callback(config.RedirectURI, s)
	acs, err := url.Parse(callback)
	if err != nil {
		r.fault("redirectURI", "value", "", "is not an address")
		return
	}
	c.provider = saml.ServiceProvider{
		EntityID: cmp.Or(config.EntityIssuer, callback), AcsURL: *acs,
		IDPMetadata: &saml.EntityDescriptor{EntityID: config.SSOIssuer, IDPSSODescriptors: []saml.IDPSSODescriptor{{
			SSODescriptor: saml.SSODescriptor{RoleDescriptor: saml.RoleDescriptor{KeyDescriptors: config.certificates(r)}},
		}}},
		AuthnNameIDFormat: config.nameIDFormat(r), SendUnspecifiedNameIDFormat: true,
		AssertionConsumerServiceBindings: []string{saml.HTTPPostBinding}, MetadataOmitValidUntil: true,
		RejectSHA1Signatures: !config.InsecureAcceptSHA1, RejectUnknownConditions: true,
	}
}

// nameIDFormat is what kind of name the provider is asked for.
func (c *samlConfig) nameIDFormat(r *report) saml.NameIDFormat {
	if c.NameIDPolicyFormat == "" {
		return saml.PersistentNameIDFormat
	}
	var names []string
	for _, full := range samlNameIDFormats {
		name := full[strings.LastIndex(full, ":")+1:]
		if c.NameIDPolicyFormat == name || c.NameIDPolicyFormat == full {
			return saml.NameIDFormat(full)
		}
		names = append(names, name)
	}
	r.oneOf("nameIDPolicyFormat", c.NameIDPolicyFormat, names...)
	return ""
}

// certificates are those by which the provider may sign.
func (c *samlConfig) certificates(r *report) (keys []saml.KeyDescriptor) {
	path, code, data := "caData", "value", c.CAData
	switch {
	case c.CA != "" && data != nil:
		r.fault(path, code, "", "cannot be combined with ca: only one of them can have the provider's certificates")
		return nil
	case c.CA == "" && data == nil:
		r.fault(path, "required", "", "or ca is required: the certificate by which the provider signs, in PEM, in base64 "+
			"once more, or in a file that ca names")
		return nil
	case c.CA != "":
		path, code = "ca", "file"
		data = r.file(path, c.CA)
	}
	for len(bytes.TrimSpace(data)) > 0 || len(keys) == 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			r.fault(path, code, "", "must hold certificates in PEM, and nothing after them")
			return nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			r.fault(path, code, "", "must hold only certificates in PEM, but one of them cannot be read")
			return nil
		}
		keys = append(keys, saml.KeyDescriptor{Use: "signing", KeyInfo: saml.KeyInfo{X509Data: saml.X509Data{
			X509Certificates: []saml.X509Certificate{{Data: base64.StdEncoding.EncodeToString(certificate.Raw)}},
		}}})
		data = rest
	}
	return keys
}

// Describe is the metadata of a service provider (saml-metadata-2.0-os).
func (c *samlConnector) Describe() (mediaType string, document []byte, err error) {
	if document, err = xml.MarshalIndent(c.provider.Metadata(), "", "  "); err != nil {
		return "", nil, fmt.Errorf("write the metadata: %w", err)
	}
	return "application/samlmetadata+xml", append([]byte(xml.Header), document...), nil
}

// samlKept is what Start keeps for Finish.
type samlKept struct {
	Request string `json:"r"` // its ID
	Begun   int64  `json:"t"` // seconds since 1970
}

// Start sends the browser to the provider with a request in a form (saml-bindings-2.0-os section 3.5).
func (c *samlConnector) Start(_ context.Context, ask connector.Ask) (connector.Away, error) {
	request, err := c.provider.MakeAuthenticationRequest(c.config.SSOURL, saml.HTTPPostBinding, saml.HTTPPostBinding)
	if err != nil {
		return connector.Away{}, fmt.Errorf("make a SAML request: %w", err)
	}
	if ask.Fresh {
		request.ForceAuthn = &ask.Fresh
	}
	document := etree.NewDocument()
	document.SetRoot(request.Element())
	text, err := document.WriteToBytes()
	if err != nil {
		return connector.Away{}, fmt.Errorf("write a SAML request: %w", err)
	}
	keep, err := json.Marshal(samlKept{Request: request.ID, Begun: request.IssueInstant.Unix()})
	if err != nil {
		return connector.Away{}, fmt.Errorf("keep a SAML request: %w", err)
	}
	return connector.Away{
		URL:  c.config.SSOURL,
		Post: map[string]string{"SAMLRequest": base64.StdEncoding.EncodeToString(text), "RelayState": ask.State},
		Keep: keep,
	}, nil
}

// Finish reads the answer from the form that the browser posts.
func (c *samlConnector) Finish(_ context.Context, ask connector.Ask, keep []byte, r *http.Request) (
	connector.Identity, error,
) {
	var kept samlKept
	if err := json.Unmarshal(keep, &kept); err != nil || kept.Request == "" {
		return connector.Identity{}, errors.New("what was kept of a SAML request cannot be read")
	}
	text := r.PostForm.Get("SAMLResponse")
	if text == "" {
		return connector.Identity{}, connector.Refuse("there is no SAMLResponse: it has to come by HTTP POST")
	}
	if len(text) > base64.StdEncoding.EncodedLen(maxSAMLResponse)+maxSAMLResponse/16 { // with line breaks
		return connector.Identity{}, connector.Refuse("the SAMLResponse has more than %d bytes", maxSAMLResponse)
	}
	response, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return connector.Identity{}, connector.Refuse("the SAMLResponse is not base64")
	}
	assertion, err := c.assertion(response, kept.Request)
	if err != nil {
		return connector.Identity{}, err
	}
	if ask.Fresh && authnInstant(assertion).Add(samlSkew).Unix() < kept.Begun {
		return connector.Identity{}, connector.Refuse("the provider was asked to have the person sign in anew " +
			"(ForceAuthn), and did not: its AuthnInstant is older than the request")
	}
	return c.identity(assertion)
}

// assertion is the one in a response, if all about it is as it should be. There is no error but a verdict.
func (c *samlConnector) assertion(response []byte, request string) (*saml.Assertion, error) {
	outline, err := readOutline(response)
	switch {
	case err != nil:
		return nil, connector.Refuse("%v", err)
	case outline.Status.Code.Value != saml.StatusSuccess:
		return nil, connector.Refuse("the provider says %s", outline.Status.Code)
	case outline.Signature == nil && outline.Assertion.Signature == nil:
		return nil, connector.Refuse("neither the response nor its assertion is signed")
	}
	provider := c.provider
	if c.config.SSOIssuer == "" { // as in Dex, any issuer whose certificate this is
		idp := *provider.IDPMetadata
		idp.EntityID = outline.Assertion.Issuer
		provider.IDPMetadata = &idp
	}
	assertion, err := provider.ParseXMLResponse(response, []string{request}, provider.AcsURL)
	if err != nil {
		return nil, c.verdict(err)
	}
	return assertion, c.inTime(assertion)
}

// verdict says why crewjam/saml refuses a response, without quoting it.
func (c *samlConnector) verdict(err error) error {
	of := func(kind error) bool { return errors.Is(err, kind) }
	switch {
	case of(saml.ErrUntrustedCertificate):
		return connector.Refuse("it is signed with a certificate that is not in ca or caData")
	case of(saml.ErrCertificateNotValidNow):
		return connector.Refuse("the certificate that it is signed with has expired, or is not valid yet")
	case of(saml.ErrInvalidSignature) && of(saml.ErrUnsupported):
		return connector.Refuse("it is signed with SHA-1: have the provider sign with SHA-256 " +
			"(insecureAcceptSHA1 takes it all the same)")
	case of(saml.ErrInvalidSignature):
		return connector.Refuse("its signature is wrong, or not over the ID of what it signs")
	case of(saml.ErrRequestIDMismatch):
		return connector.Refuse("it answers another request (InResponseTo), or none")
	case of(saml.ErrIssuerMismatch) && c.config.SSOIssuer == "":
		return connector.Refuse("the response and its assertion have two issuers")
	case of(saml.ErrIssuerMismatch):
		return connector.Refuse("its issuer is not ssoIssuer, %s", c.config.SSOIssuer)
	case of(saml.ErrDestinationMismatch):
		return connector.Refuse("its Destination or Recipient is not %s", c.provider.AcsURL.String())
	case of(saml.ErrAudienceMismatch):
		return connector.Refuse("its audience is not %s (entityIssuer, or else redirectURI)", c.provider.EntityID)
	case of(saml.ErrExpired):
		return connector.Refuse("it has expired, or the clocks of the two sides are apart")
	case of(saml.ErrNotYetValid):
		return connector.Refuse("it is not valid yet: the clocks of the two sides are apart")
	case of(saml.ErrMissingElement):
		return connector.Refuse("it lacks what the Web Browser SSO Profile demands: an Assertion with a Subject, its " +
			"NameID, a bearer confirmation, Conditions, and an AuthnStatement")
	case of(saml.ErrUnsupported):
		return connector.Refuse("it is not SAML 2.0, or has conditions that this server does not know")
	}
	return connector.Refuse("it is not a SAML 2.0 response that can be read")
}

// inTime holds an assertion to [samlSkew], where crewjam/saml allows for minutes.
func (c *samlConnector) inTime(assertion *saml.Assertion) error {
	now := c.provider.Clock.Now()
	within := func(notBefore, notOnOrAfter time.Time) bool {
		return !now.Add(samlSkew).Before(notBefore) && (notOnOrAfter.IsZero() || now.Add(-samlSkew).Before(notOnOrAfter))
	}
	ok := within(assertion.Conditions.NotBefore, assertion.Conditions.NotOnOrAfter)
	for _, confirmation := range assertion.Subject.SubjectConfirmations {
		if data := confirmation.SubjectConfirmationData; confirmation.Method == samlBearer && data != nil {
			ok = ok && within(data.NotBefore, data.NotOnOrAfter)
		}
	}
	if !ok {
		return connector.Refuse("it has expired or is not valid yet, or the clocks of the two sides are apart")
	}
	return nil
}

// authnInstant is when the person signed in at the provider: the latest time, if there are several.
func authnInstant(assertion *saml.Assertion) (at time.Time) {
	for _, statement := range assertion.AuthnStatements {
		if statement.AuthnInstant.After(at) {
			at = statement.AuthnInstant
		}
	}
	return at
}

// identity is who an assertion is about, exactly as Dex's connector says: whoever moves from there is the same person
// here. Groups without a name are left out.
func (c *samlConnector) identity(assertion *saml.Assertion) (who connector.Identity, err error) {
	var attributes []saml.Attribute
	for _, statement := range assertion.AttributeStatements {
		attributes = append(attributes, statement.Attributes...)
	}
	all := func(name string) (values []string, has bool) {
		for _, attribute := range attributes {
			if attribute.Name == name {
				has = true
				for _, value := range attribute.Values {
					values = append(values, value.Value)
				}
			}
		}
		return values, has
	}
	first := func(name string) string {
		values, _ := all(name)
		return append(values, "")[0]
	}
	missing := func(key, name string) error {
		return connector.Refuse("the attribute %q is missing or empty (%s says which one to take). There are: %s",
			name, key, attributeNames(attributes))
	}
	if who.UserID = assertion.Subject.NameID.Value; who.UserID == "" || len(who.UserID) > 1024 {
		return connector.Identity{}, connector.Refuse("the NameID has %d bytes, where 1 to 1024 are taken", len(who.UserID))
	}
	if who.Email = first(c.config.EmailAttr); who.Email == "" {
		return connector.Identity{}, missing("emailAttr", c.config.EmailAttr)
	}
	who.EmailVerified = true
	if who.Name = first(c.config.UsernameAttr); who.Name == "" {
		return connector.Identity{}, missing("usernameAttr", c.config.UsernameAttr)
	}
	if c.config.GroupsAttr != "" {
		groups, has := all(c.config.GroupsAttr)
		if !has {
			return connector.Identity{}, missing("groupsAttr", c.config.GroupsAttr)
		}
		if c.config.GroupsDelim != "" {
			groups = strings.Split(first(c.config.GroupsAttr), c.config.GroupsDelim)
		}
		who.Groups = slices.DeleteFunc(groups, func(group string) bool { return strings.TrimSpace(group) == "" })
	}
	if allowed := c.config.AllowedGroups; len(allowed) > 0 {
		in := slices.DeleteFunc(slices.Clone(who.Groups), func(group string) bool { return !slices.Contains(allowed, group) })
		if len(in) == 0 {
			return connector.Identity{}, connector.Refuse("the person is in none of allowedGroups")
		}
		if c.config.FilterGroups {
			who.Groups = in
		}
	}
	if c.trust {
		if at := authnInstant(assertion); at.Before(c.provider.Clock.Now()) {
			who.AuthTime = at
		}
		for _, statement := range assertion.AuthnStatements {
			if class := statement.AuthnContext.AuthnContextClassRef; class != nil {
				who.ACR = strings.TrimSpace(class.Value)
			}
		}
	}
	return who, nil
}

// attributeNames are for an operator who looks for the right one.
func attributeNames(attributes []saml.Attribute) string {
	const most, longest = 20, 100
	var names []string
	for _, attribute := range attributes[:min(len(attributes), most)] {
		names = append(names, fmt.Sprintf("%.*q", longest, attribute.Name))
	}
	return cmp.Or(strings.Join(names, ", "), "none")
}
