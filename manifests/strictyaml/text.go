package strictyaml

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// Limits on one file. What people write by hand is a few KiB with a handful of levels.
const (
	MaxBytes     = 1 << 20
	MaxDocuments = 100
	MaxDepth     = 64
	// MaxNodes bounds the tree after aliases and merge keys are resolved.
	MaxNodes = 50_000
)

// Split checks the bytes of a file and takes it apart into its documents. Faults are in the report; a file that
// cannot be read any further has no documents.
func Split(r *Report, data []byte) []Document {
	text, ok := readText(r, data)
	if !ok {
		return nil
	}
	return text.split(r)
}

// source is the text of a file that passed [readText], and where its lines begin.
type source struct {
	data  []byte
	lines []int // byte offset of each line
}

// readText checks the bytes of a file. It returns false when there is no point in reading on.
func readText(r *Report, data []byte) (source, bool) {
	start := Position{1, 1}
	if len(data) > MaxBytes {
		r.Errorf(Position{}, "", "too-large", "", "the file is larger than %d KiB", MaxBytes>>10)
		return source{}, false
	}
	for _, other := range [...]string{"\xff\xfe", "\xfe\xff", "\x00\x00\xfe\xff"} {
		if bytes.HasPrefix(data, []byte(other)) {
			r.Errorf(start, "", "not-utf8", "", "the file is UTF-16 or UTF-32: save it as UTF-8")
			return source{}, false
		}
	}
	if rest, found := bytes.CutPrefix(data, []byte("\uFEFF")); found {
		r.Warnf(start, "", "byte-order-mark", "", "the file begins with a byte order mark: save it as UTF-8 without one")
		data = rest
	}
	text := source{data: data, lines: lineStarts(data)}
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			r.Errorf(text.position(i), "", "not-utf8", "", "the file is not UTF-8 from here on: save it as UTF-8")
			return source{}, false
		case !isYAMLCharacter(c):
			r.Errorf(text.position(i), "", "control-character", "", "the character %U is not allowed in YAML", c)
			return source{}, false
		}
		i += size
	}
	return text, true
}

// isYAMLCharacter is c-printable of YAML 1.2 section 5.1, without the byte order mark.
func isYAMLCharacter(c rune) bool {
	switch {
	case c == '\t', c == '\n', c == '\r', c == 0x85:
		return true
	case c < 0x20, c == 0x7F, c > 0x7F && c < 0xA0, c == 0xFEFF, c == 0xFFFE, c == 0xFFFF:
		return false
	}
	return true
}

// lineStarts finds the lines as the YAML library counts them: ended by LF, CR, CR LF, NEL, LS or PS.
func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, c := range data {
		ended := c == '\n' ||
			c == '\r' && (i+1 == len(data) || data[i+1] != '\n') ||
			c == 0x85 && i >= 1 && data[i-1] == 0xC2 ||
			(c == 0xA8 || c == 0xA9) && i >= 2 && data[i-1] == 0x80 && data[i-2] == 0xE2
		if ended {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// position turns a byte offset into line and column.
func (s source) position(offset int) Position {
	line := sort.SearchInts(s.lines, offset+1)
	return Position{line, utf8.RuneCount(s.data[s.lines[line-1]:offset]) + 1}
}

// line returns the 1-based line n with its end.
func (s source) line(n int) []byte {
	end := len(s.data)
	if n < len(s.lines) {
		end = s.lines[n]
	}
	return s.data[s.lines[n-1]:end]
}

// Document is the text of one YAML document of a file.
type Document struct {
	source
	before int // lines of the file before it
}

// Text is the document as it was written, with its comments and the "---" before it. It is part of what [Split] was
// given.
func (d Document) Text() []byte { return d.data }

// Start is where the document begins in its file.
func (d Document) Start() Position { return Position{d.before + 1, 1} }

// split cuts a file into its documents. A line that begins with "---" always begins a document, and "..." always ends
// one (YAML 1.2 section 9.1.2), so this needs no parser, and a syntax error in one document leaves the others readable.
// Documents without content are left out.
func (s source) split(r *Report) []Document {
	var documents []Document
	first, marked, content := 1, false, false
	flush := func(next int) {
		if content {
			documents = append(documents, s.document(first, next))
		}
		first, marked, content = next, false, false
	}
	for n := 1; n <= len(s.lines); n++ {
		line := s.line(n)
		trimmed := bytes.TrimSpace(line)
		switch {
		case isMarker(line, "---"):
			if marked || content {
				flush(n)
			}
			marked = true
			rest := bytes.TrimSpace(trimmed[3:])
			content = len(rest) > 0 && rest[0] != '#'
		case isMarker(line, "..."):
			flush(n + 1)
		case len(trimmed) == 0, trimmed[0] == '#':
		case line[0] == '%' && !marked && !content: // a directive belongs to the document that follows
		default:
			content = true
		}
		if len(documents) == MaxDocuments && (marked || content) {
			r.Errorf(Position{n, 1}, "", "too-many-documents", "", "the file has more than %d documents", MaxDocuments)
			return nil
		}
	}
	flush(len(s.lines) + 1)
	return documents
}

func isMarker(line []byte, marker string) bool {
	rest, found := bytes.CutPrefix(line, []byte(marker))
	return found && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// document returns the lines from first up to, but without, next.
func (s source) document(first, next int) Document {
	end := len(s.data)
	if next <= len(s.lines) {
		end = s.lines[next-1]
	}
	data := s.data[s.lines[first-1]:end]
	return Document{source: source{data: data, lines: lineStarts(data)}, before: first - 1}
}

// syntaxFault reports what the YAML library could not read. The library tells only a line, and often that of the
// surrounding collection, so the line is found again: it is the last one of the shortest beginning of the document that
// fails in the same way.
func (d Document) syntaxFault(r *Report, parse func([]byte) error, failure error) {
	const searched = 64 << 10 // beyond this, reading it a dozen times more is not worth a better line
	problem := yamlProblem(failure)
	line := 1
	if _, err := fmt.Sscanf(failure.Error(), "yaml: line %d:", &line); err != nil {
		line = 1
	}
	if len(d.data) <= searched {
		line = 1 + sort.Search(len(d.lines)-1, func(i int) bool {
			err := parse(d.data[:d.lines[i+1]])
			return err != nil && yamlProblem(err) == problem
		})
	}
	line = min(max(line, 1), len(d.lines))
	text := string(d.line(line))
	column := len(text) - len(strings.TrimLeft(text, " "))
	if name, found := strings.CutPrefix(problem, "unknown anchor '"); found {
		name, _, _ = strings.Cut(name, "'")
		column = max(column, strings.Index(text, "*"+name))
	}
	at := Position{d.before + line, utf8.RuneCountInString(text[:column]) + 1}
	code := "syntax"
	if strings.Contains(problem, "exceeded max depth") {
		code = "too-deep"
	}
	r.Errorf(at, "", code, "", "%s", plainProblem(problem, text[column:]))
}

// yamlProblem is the library's message without its prefix and line.
func yamlProblem(err error) string {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	if after, found := strings.CutPrefix(problem, "line "); found {
		if _, rest, found := strings.Cut(after, ": "); found {
			return rest
		}
	}
	return problem
}

// plainProblem rewords the library's message for someone who does not know how a YAML parser works.
func plainProblem(problem, text string) string {
	switch {
	case strings.HasPrefix(text, "\t"):
		return "YAML cannot be indented with tabs: use spaces"
	case strings.Contains(problem, "did not find expected key"):
		return "this line does not fit the ones above it: look at the indentation and at unclosed quotes"
	case strings.Contains(problem, "did not find expected '-' indicator"):
		return "this line does not fit the list above it: look at the indentation"
	case strings.Contains(problem, "mapping values are not allowed"):
		return "a second \": \" on one line: quote the value, or look at the indentation"
	case strings.Contains(problem, "could not find expected ':'"):
		return "a key without \":\" after it"
	case strings.Contains(problem, "found unexpected end of stream"):
		return "a quote that is never closed"
	case strings.Contains(problem, "',' or"):
		return "a list or mapping in brackets that is not closed, lacks a comma, or holds a value that needs quotes"
	case strings.Contains(problem, "did not find expected node content"):
		return "a bracket or comma where a value should be, or a value that needs quotes"
	case strings.HasPrefix(problem, "unknown anchor "):
		return "refers to " + strings.TrimSuffix(strings.TrimPrefix(problem, "unknown anchor "), " referenced") +
			", but nothing above it is anchored by that name"
	case strings.Contains(problem, "exceeded max depth"):
		return fmt.Sprintf("nested deeper than %d levels", MaxDepth)
	}
	return "not YAML: " + problem
}
