package pages

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"strings"
	"unicode/utf8"
)

// Branding is what an operator says about themselves on each page. All of it may be left out.
type Branding struct {
	Name string // at the top of each page, over the host
	Logo *Logo  // beside it, in the place of warifu's mark
	// Support is where people find help: a web address, or mailto:. Privacy is where the operator's privacy policy is.
	Support, Privacy string
}

// Logo is an image that is served from here, see [ReadLogo].
type Logo struct{ image asset }

// Limits of a branding.
const (
	maxLogo      = 256 << 10 // bytes; it is on every page
	maxBrandName = 40        // characters; more does not fit on a phone
)

// logoTypes are the kinds of images that a logo can be, with the ending of their names.
var logoTypes = map[string]string{
	"image/svg+xml": ".svg", "image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp",
}

// ReadLogo finds out what kind of image a file holds. Its error goes on after the name of the file.
func ReadLogo(data []byte) (*Logo, error) {
	if len(data) > maxLogo {
		return nil, fmt.Errorf("which has %d KiB: a logo is on every page, and may have %d KiB at most",
			len(data)>>10, maxLogo>>10)
	}
	kind := http.DetectContentType(data)
	if isSVG(data) {
		kind = "image/svg+xml"
	}
	if logoTypes[kind] == "" {
		return nil, errors.New("which is not an SVG, PNG, JPEG or WebP image")
	}
	return &Logo{asset{contentType: kind, body: data}}, nil
}

// ServeLogo serves an image from here, and returns its path: "" for what is no image that [ReadLogo] takes.
func (s *Set) ServeLogo(data []byte) string {
	logo, err := ReadLogo(data)
	if err != nil {
		return ""
	}
	return s.serveAsset(strings.TrimSuffix(s.site.Home, "/"), "logo"+logoTypes[logo.image.contentType], logo.image)
}

// isSVG reports whether the root element of an XML document is an SVG image.
func isSVG(data []byte) bool {
	for d := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := d.RawToken()
		if err != nil {
			return false
		}
		if root, is := token.(xml.StartElement); is {
			return root.Name.Local == "svg"
		}
	}
}

// BrandingError is a field of a [Branding] that cannot be as it is.
type BrandingError struct {
	Field   string // of Branding
	Reason  string // completes the sentence "the name ..."
	Nearest string // what was probably meant; "" when nothing is like it
}

func (e *BrandingError) Error() string { return "branding: " + e.Field + " " + e.Reason }

// Check finds everything that is wrong. A [Set] is only made of a branding with which nothing is.
func (b Branding) Check() []BrandingError {
	var wrong []BrandingError
	refuse := func(field, format string, args ...any) {
		wrong = append(wrong, BrandingError{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	switch {
	case utf8.RuneCountInString(b.Name) > maxBrandName:
		refuse("Name", "must be %d characters or less", maxBrandName)
	case plain(b.Name, maxBrandName) != b.Name:
		refuse("Name", "must be one line of text, without control characters and without spaces around it")
	}
	if address, mails := strings.CutPrefix(b.Support, "mailto:"); mails {
		if a, err := mail.ParseAddress(address); err != nil || a.Address != address || strings.ContainsAny(address, "?&%") {
			refuse("Support", "must be mailto: and an e-mail address alone, as in mailto:help@example.com, but is %q", b.Support)
		}
	} else if !isLink(b.Support) {
		refuse("Support", "must be an https URL, or mailto: and an e-mail address, but is %q", b.Support)
		if a, err := mail.ParseAddress(b.Support); err == nil && a.Address == b.Support {
			wrong[len(wrong)-1].Nearest = "mailto:" + b.Support
		}
	}
	if !isLink(b.Privacy) {
		refuse("Privacy", "must be an https URL, but is %q", b.Privacy)
	}
	return wrong
}

// isLink reports whether pages can link to an address, or it is left out.
func isLink(address string) bool { return address == "" || linkable(address) != "" }
