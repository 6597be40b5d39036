package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/warifu/warifu/storage"
)

// A list is an array, of which a reply holds a part. While there is more, the header Link (RFC 8288) has the path of
// the next part, with rel="next".

// mostItems bounds a part.
const mostItems = 500

// Part is what every list that can grow takes.
type Part struct {
	After string `query:"after" maxLength:"1200" doc:"Where the part before ended. Take it from the header Link of that part, as it is."`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"500" doc:"The most items in a reply. It may hold fewer, or none, and still not be the last."`

	url url.URL
}

// Resolve notes what was asked for, so that the link repeats it.
func (p *Part) Resolve(ctx huma.Context) []error {
	p.url = ctx.URL()
	return nil
}

func (p *Part) stored() storage.Part { return storage.Part{After: p.After, Limit: p.Limit} }

// items is a part of a list.
type items[T any] struct {
	Link string `header:"Link" doc:"The next part, with rel=\"next\". Left out in the last one."`
	Body []T
}

// link leads to the next part, whose cursor is next; empty if there is none.
func (p *Part) link(next string) string {
	if next == "" {
		return ""
	}
	query := p.url.Query()
	query.Set("after", next)
	if p.Limit != mostItems {
		query.Set("limit", strconv.Itoa(p.Limit))
	}
	return "<" + p.url.Path + "?" + query.Encode() + `>; rel="next"`
}

// Next is the path of the next part of a list, from the header of a reply; empty for the last one.
func Next(header http.Header) string {
	target, rel, _ := strings.Cut(header.Get("Link"), ">")
	if path, ok := strings.CutPrefix(target, "<"); ok && strings.TrimPrefix(rel, "; ") == `rel="next"` {
		return path
	}
	return ""
}
