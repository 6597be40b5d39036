package storage

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// The file of an export holds all that a server knows, so it is encrypted, under a key of its own:
//
//	warifu export 1\n                      what it is, and the version of the file
//	8 bytes                                which key it is under, so that a wrong one is told from a damaged file
//	32 random bytes                        with the key, they make that of this file
//	chunks: 64 KiB and 16 bytes of a tag   XChaCha20-Poly1305; the last one may be shorter
//
// The nonce of a chunk is its number and whether it is the last one, and what stands before the chunks is authenticated
// with each of them. So a chunk does not open in another place or another file, and a file that was cut off has no last
// one. Inside are the lines of [Store.Export], compressed, with what is sealed in them resealed under a key that comes
// from the file's: neither the encryption key of the database that they came from nor that of the next is needed for
// the other.

const (
	exportMagic = "warifu export "
	exportChunk = 64 << 10
	exportHead  = 8 + 32 // after the first line
)

// ExportKey is the key of the files of exports.
type ExportKey struct {
	secret []byte
	name   []byte // what names it in the file, 8 bytes
}

// ReadExportKey reads a key file: 32 bytes in base64. [CreateKEKFile] makes one.
func ReadExportKey(file string) (ExportKey, error) {
	kek, err := ReadKEK(file) // which has the same form
	if err != nil {
		return ExportKey{}, err
	}
	sum := sha256.Sum256(append([]byte("warifu export key\n"), kek.newest...)) // which says nothing about the key
	return ExportKey{kek.newest, sum[:8]}, nil
}

func (k ExportKey) derive(salt []byte, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, k.secret, salt, "warifu export "+purpose, chacha20poly1305.KeySize)
	if err != nil {
		panic("storage: derive key: " + err.Error()) // the length is constant
	}
	return key
}

// chunks is the cipher of a file, and where in it one is.
type chunks struct {
	aead cipher.AEAD
	head []byte
	next uint64
}

func (k ExportKey) chunks(head []byte) (*chunks, error) {
	aead, err := chacha20poly1305.NewX(k.derive(head[len(head)-32:], "chunks"))
	return &chunks{aead: aead, head: head}, err
}

// seals is the key under which what is sealed in a file is.
func (k ExportKey) seals(head []byte) (*KEK, error) {
	return NewKEK(k.derive(head[len(head)-32:], "seals"))
}

func (c *chunks) nonce(last bool) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	binary.BigEndian.PutUint64(nonce, c.next)
	if last {
		nonce[8] = 1
	}
	c.next++
	return nonce
}

// chunkWriter encrypts what is written to it. Close writes the last chunk, and does not close what is below.
type chunkWriter struct {
	*chunks
	to  io.Writer
	buf []byte
}

func (w *chunkWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if len(w.buf) == exportChunk { // there is more, so it is not the last one
			if err := w.flush(false); err != nil {
				return n, err
			}
		}
		some := min(exportChunk-len(w.buf), len(p))
		w.buf = append(w.buf, p[:some]...)
		p, n = p[some:], n+some
	}
	return n, nil
}

func (w *chunkWriter) flush(last bool) error {
	_, err := w.to.Write(w.aead.Seal(nil, w.nonce(last), w.buf, w.head))
	w.buf = w.buf[:0]
	return err
}

func (w *chunkWriter) Close() error { return w.flush(true) }

// chunkReader decrypts. It gives nothing out that was not authenticated.
type chunkReader struct {
	*chunks
	from  *bufio.Reader
	plain []byte
	ended bool
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.chunk(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

var errExportCut = errors.New("the file is cut off: copy it again, or export again")

func (r *chunkReader) chunk() error {
	sealed := make([]byte, exportChunk+chacha20poly1305.Overhead)
	n, err := io.ReadFull(r.from, sealed)
	switch {
	case errors.Is(err, io.EOF):
		return errExportCut
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	_, more := r.from.Peek(1)
	at := r.next
	full, isLast := r.nonce(false), more != nil
	if isLast {
		full[8] = 1
	}
	plain, err := r.aead.Open(nil, full, sealed[:n], r.head)
	if err != nil {
		if full[8] = 0; isLast { // it may be one of a longer file
			if _, err := r.aead.Open(nil, full, sealed[:n], r.head); err == nil {
				return errExportCut
			} else if n < len(sealed) {
				return fmt.Errorf("the file is cut off, or damaged somewhere from byte %d on: copy it again, or export again",
					len(r.head)+int(at)*len(sealed))
			}
		}
		return fmt.Errorf("the file is damaged or was altered, or something follows its end: part %d, from byte %d, "+
			"is not what was written", at+1, len(r.head)+int(at)*len(sealed))
	}
	r.plain, r.ended = plain, isLast
	return nil
}

// WriteExport makes the file of an export from what [Store.Export] wrote. kek opens what is sealed there.
func WriteExport(to io.Writer, from io.Reader, kek *KEK, key ExportKey) (*ExportHeader, *ExportEnd, error) {
	return writeFile(exportMagic, to, from, kek, key)
}

func writeFile(magic string, to io.Writer, from io.Reader, kek *KEK, key ExportKey) (*ExportHeader, *ExportEnd, error) {
	head := append([]byte(magic+strconv.Itoa(exportFormat)+"\n"), key.name...)
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	head = append(head, salt...)
	sealing, err := key.chunks(head)
	if err != nil {
		return nil, nil, err
	}
	seals, err := key.seals(head)
	if err != nil {
		return nil, nil, err
	}
	if _, err := to.Write(head); err != nil {
		return nil, nil, err
	}
	encrypted := &chunkWriter{chunks: sealing, to: to}
	compressed, err := gzip.NewWriterLevel(encrypted, gzip.BestSpeed)
	if err != nil {
		return nil, nil, err
	}
	out := bufio.NewWriterSize(compressed, 64<<10)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	reseal := resealing{kek.beneath(seals)}
	in, header, err := readExport(from)
	if err != nil {
		return nil, nil, err
	}
	if err := lines.Encode(header); err != nil {
		return nil, nil, err
	}
	end, err := in.each(func(r *exportRecord) error {
		if err := reseal.record(r); err != nil {
			return err
		}
		return lines.Encode(exportLine{exportRecord: *r})
	})
	if err != nil {
		return nil, nil, err
	}
	err = lines.Encode(exportLine{End: end})
	for _, finish := range []func() error{out.Flush, compressed.Close, encrypted.Close} {
		if err == nil {
			err = finish()
		}
	}
	return header, end, err
}

// openExport decrypts the file of an export. It returns the key under which it is sealed inside.
func openExport(file io.Reader, key ExportKey) (*exportLines, *ExportHeader, *KEK, error) {
	return openFile(exportMagic, file, func(name []byte) (ExportKey, error) {
		if !bytes.Equal(name, key.name) {
			return key, fmt.Errorf("the file was written with key %s, and this is key %s: name the file of that key "+
				"with --key", hex.EncodeToString(name), hex.EncodeToString(key.name))
		}
		return key, nil
	})
}

// openFile is openExport for files of either sort. keyOf is the key with a name.
func openFile(magic string, file io.Reader, keyOf func(name []byte) (ExportKey, error)) (
	*exportLines, *ExportHeader, *KEK, error) {
	from := bufio.NewReaderSize(file, 256<<10)
	first, err := from.ReadSlice('\n')
	version, is := strings.CutPrefix(string(first), magic)
	switch {
	case !is && magic == exportMagic:
		return nil, nil, nil, errors.New("this is not what warifu export writes; a backup is restored with warifu restore")
	case !is:
		return nil, nil, nil, errNoBackup
	case err != nil:
		return nil, nil, nil, errExportCut
	}
	if version = strings.TrimSuffix(version, "\n"); version != strconv.Itoa(exportFormat) {
		return nil, nil, nil, newerExport(version)
	}
	head := slices.Grow(bytes.Clone(first), exportHead)[:len(first)+exportHead]
	if _, err := io.ReadFull(from, head[len(first):]); err != nil {
		return nil, nil, nil, errExportCut
	}
	key, err := keyOf(head[len(first) : len(first)+8])
	if err != nil {
		return nil, nil, nil, err
	}
	opening, err := key.chunks(head)
	if err != nil {
		return nil, nil, nil, err
	}
	seals, err := key.seals(head)
	if err != nil {
		return nil, nil, nil, err
	}
	plain, err := gzip.NewReader(&chunkReader{chunks: opening, from: from})
	if err != nil {
		return nil, nil, nil, err
	}
	lines, header, err := readExport(plain)
	return lines, header, seals, err
}

func newerExport(version string) error {
	return fmt.Errorf("the file is of format %s, and this version of warifu reads format %d: use the "+
		"version that wrote it, "+
		"or a later one", version, exportFormat)
}

// exportLines are the lines after the header.
type exportLines struct {
	from *json.Decoder
	seen ExportEnd
}

func readExport(from io.Reader) (*exportLines, *ExportHeader, error) {
	in, header := json.NewDecoder(from), new(ExportHeader)
	var first struct {
		*ExportHeader
		Fault string `json:"fault"`
	}
	first.ExportHeader = header
	if err := in.Decode(&first); err != nil {
		return nil, nil, fmt.Errorf("read the export: %w", cutOff(err))
	}
	switch {
	case first.Fault != "":
		return nil, nil, errors.New(first.Fault)
	case header.Format != exportFormat:
		return nil, nil, newerExport(strconv.Itoa(header.Format))
	}
	return &exportLines{from: in}, header, nil
}

// cutOff is an error of a stream that ends too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errExportCut
	}
	return err
}

// each calls do with each record, and returns what the last line says.
func (l *exportLines) each(do func(r *exportRecord) error) (*ExportEnd, error) {
	for {
		var line exportLine
		if err := l.from.Decode(&line); err != nil {
			return nil, fmt.Errorf("read the export: %w", cutOff(err))
		}
		switch {
		case line.Fault != "":
			return nil, errors.New(line.Fault)
		case line.End != nil:
			if line.End.Records != l.seen.Records {
				return nil, fmt.Errorf("the export has %d records, and says that it has %d", l.seen.Records, line.End.Records)
			}
			// Reading on to the end makes sure that it is the end.
			if _, err := l.from.Token(); !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read the export: something follows its end (%w)", err)
			}
			return line.End, nil
		}
		if kind := line.kind(); !slices.Contains(movedKinds(), kind) || stays(line.Key) {
			return nil, fmt.Errorf("the export has records %s/..., which this version of warifu does not take", kind)
		}
		l.seen.count(line.kind())
		if err := do(&line.exportRecord); err != nil {
			return nil, fmt.Errorf("%s: %w", line.Key, err)
		}
	}
}

// resealing moves what is sealed in records to the newest key of a KEK.
type resealing struct{ *KEK }

func (k resealing) record(r *exportRecord) error {
	if !slices.Contains(sealedKinds(), r.kind()) {
		return nil
	}
	value, err := k.resealed(under(r.kind()), []byte(r.Value))
	if err == nil && value != "" {
		r.Value = value
	}
	return err
}

// beneath is a KEK that seals under the newest key of another, and opens what is under its own as well.
func (k *KEK) beneath(newest *KEK) *KEK {
	return &KEK{ids: slices.Concat(newest.ids, k.ids), aeads: slices.Concat(newest.aeads, k.aeads), newest: newest.newest}
}
