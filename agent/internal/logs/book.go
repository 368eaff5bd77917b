// Package logs keeps the last lines that the entrypoint and the services printed.
package logs

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

const (
	// How much is kept, counting each entry's text and about what else it takes.
	maxBytes      = 1 << 20
	entryOverhead = 96
	// Lines longer than this come in several entries.
	maxLine = 16 << 10
)

// Entry is one line, or a piece of a long one.
type Entry struct {
	Sequence int64
	Time     time.Time
	Source   string
	Stream   sandpoolv1.OutputStream
	Text     string
	Partial  bool
}

// Book is the last entries of all sources, in the order in which they came.
type Book struct {
	now func() time.Time

	mu      sync.Mutex
	entries []Entry
	bytes   int
	last    int64
	// changed is closed, and replaced, when entries come.
	changed chan struct{}
}

// New makes an empty book. now is the clock.
func New(now func() time.Time) *Book {
	return &Book{now: now, changed: make(chan struct{})}
}

// Writer takes what a source prints to a stream. It never waits and never fails; Close adds a last line that has no end.
func (b *Book) Writer(source string, stream sandpoolv1.OutputStream) *Writer {
	return &Writer{book: b, source: source, stream: stream}
}

// Log is Writer as an io.WriteCloser.
func (b *Book) Log(source string, stream sandpoolv1.OutputStream) io.WriteCloser {
	return b.Writer(source, stream)
}

// Since returns the entries after a sequence number, how many were lost between that and the first of them, and a channel
// that is closed when more come.
func (b *Book) Since(after int64) (entries []Entry, lost int64, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.last + 1
	if len(b.entries) > 0 {
		first = b.entries[0].Sequence
	}
	// What is after the last entry is not lost, it is to come.
	lost = max(0, min(first, b.last+1)-1-after)
	skip := min(max(0, after-(first-1)), int64(len(b.entries)))
	// Entries are never changed, and those that go are not written over.
	return b.entries[skip:], lost, b.changed
}

func (b *Book) add(source string, stream sandpoolv1.OutputStream, text []byte, partial bool) {
	b.last++
	b.entries = append(b.entries, Entry{
		Sequence: b.last, Time: b.now(), Source: source, Stream: stream,
		Text: strings.ToValidUTF8(string(text), "\uFFFD"), Partial: partial,
	})
	b.bytes += size(b.entries[len(b.entries)-1])
	for b.bytes > maxBytes {
		b.bytes -= size(b.entries[0])
		// The array under it goes with the next one that grows.
		b.entries = b.entries[1:]
	}
}

func size(e Entry) int { return len(e.Text) + entryOverhead }

// Writer makes lines of what one source prints to one stream. It belongs to one goroutine.
type Writer struct {
	book   *Book
	source string
	stream sandpoolv1.OutputStream
	begun  []byte
}

// Write implements io.Writer.
func (w *Writer) Write(data []byte) (int, error) {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	written := len(data)
	added := false
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, []byte{'\n'})
		if room := maxLine - len(w.begun); len(line) > room {
			line, rest, ended = data[:room], data[room:], false
		}
		w.begun = append(w.begun, line...)
		data = rest
		switch {
		case ended:
			w.book.add(w.source, w.stream, bytes.TrimSuffix(w.begun, []byte{'\r'}), false)
			w.begun = w.begun[:0]
			added = true
		case len(w.begun) == maxLine && len(data) > 0:
			cut := wholeRunes(w.begun)
			w.book.add(w.source, w.stream, w.begun[:cut], true)
			w.begun = append(w.begun[:0], w.begun[cut:]...)
			added = true
		}
	}
	if added {
		w.book.tell()
	}
	return written, nil
}

// wholeRunes is how much of a long line can go without cutting a character.
func wholeRunes(line []byte) int {
	for back := 1; back < utf8.UTFMax && back < len(line); back++ {
		if at := len(line) - back; utf8.RuneStart(line[at]) {
			if !utf8.FullRune(line[at:]) {
				return at
			}
			break
		}
	}
	return len(line)
}

// Close adds what is left of a line.
func (w *Writer) Close() error {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	if len(w.begun) > 0 {
		w.book.add(w.source, w.stream, w.begun, false)
		w.begun = nil
		w.book.tell()
	}
	return nil
}

func (b *Book) tell() {
	close(b.changed)
	b.changed = make(chan struct{})
}
