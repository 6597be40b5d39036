package dex

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// maxSAMLResponse is how large an answer can be, as XML, maxSAMLElements, how many elements it can have, and
	// maxSAMLDepth, in how many levels. An assertion with 200 groups, as many as a person may be in here, has 30 KiB,
	// 250 elements and 8 levels.
	maxSAMLResponse = 192 << 10
	maxSAMLElements = 4096
	maxSAMLDepth    = 64
)

// samlOutline is what is looked at before any signature is: it decides on nothing but refusals.
type samlOutline struct {
	XMLName xml.Name `xml:"urn:oasis:names:tc:SAML:2.0:protocol Response"`
	Status  struct {
		Code samlStatus `xml:"urn:oasis:names:tc:SAML:2.0:protocol StatusCode"`
	} `xml:"urn:oasis:names:tc:SAML:2.0:protocol Status"`
	Signature *struct{} `xml:"http://www.w3.org/2000/09/xmldsig# Signature"`
	Assertion struct {
		Issuer    string    `xml:"urn:oasis:names:tc:SAML:2.0:assertion Issuer"`
		Signature *struct{} `xml:"http://www.w3.org/2000/09/xmldsig# Signature"`
	} `xml:"urn:oasis:names:tc:SAML:2.0:assertion Assertion"`
}

// samlStatus is a status code: one of a few, and one that says more.
type samlStatus struct {
	Value string      `xml:"Value,attr"`
	More  *samlStatus `xml:"urn:oasis:names:tc:SAML:2.0:protocol StatusCode"`
}

// String is for a log: the ends of the URNs.
func (s samlStatus) String() string {
	words := fmt.Sprintf("%.60q", s.Value[strings.LastIndex(s.Value, ":")+1:])
	if s.More != nil {
		words += " " + s.More.String()
	}
	return words
}

// readOutline reads a response that is one well-formed document in UTF-8 without a document type, and has one assertion
// at most, in the clear. Who wraps signatures needs two, in whatever place.
func readOutline(response []byte) (*samlOutline, error) {
	if len(response) > maxSAMLResponse {
		return nil, fmt.Errorf("the SAMLResponse has more than %d bytes", maxSAMLResponse)
	}
	decoder := xml.NewDecoder(bytes.NewReader(response))
	assertions, roots, elements, depth := 0, 0, 0, 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.New("the SAMLResponse is not well-formed XML in UTF-8, without entities of its own")
		}
		switch t := token.(type) {
		case xml.Directive:
			return nil, errors.New("the SAMLResponse has a document type, which SAML does not allow")
		case xml.EndElement:
			depth--
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
			if elements++; elements > maxSAMLElements || depth > maxSAMLDepth {
				return nil, fmt.Errorf("the SAMLResponse has more than %d elements, or more than %d levels of them",
					maxSAMLElements, maxSAMLDepth)
			}
			switch {
			case t.Name.Local == "Assertion" && t.Name.Space == samlAssertions:
				assertions++
			case strings.HasPrefix(t.Name.Local, "Encrypted") && t.Name.Space == samlAssertions:
				return nil, fmt.Errorf("it has an %s, and this server has no key for that: have the provider sign, and not "+
					"encrypt, what it tells", t.Name.Local)
			}
		}
	}
	if roots != 1 || assertions > 1 {
		return nil, fmt.Errorf("the SAMLResponse has %d roots and %d assertions, where one of each is taken", roots,
			assertions)
	}
	var outline samlOutline
	if err := xml.Unmarshal(response, &outline); err != nil {
		return nil, errors.New("the SAMLResponse is no Response of SAML 2.0")
	}
	return &outline, nil
}
