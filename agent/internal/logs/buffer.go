// Package logs retains the most recent log lines of the entrypoint and the services.
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
	// Limit of the retained bytes: the text of each entry and an estimate of its other memory.
	maxBytes      = 1 << 20
	entryOverhead = 96
	// Longer lines are split into several entries.
	maxLineBytes = 16 << 10
)

// Entry is one line, or a part of a long line.
type Entry struct {
	Sequence int64
	Time     time.Time
	Source   string
	Stream   sandpoolv1.OutputStream
	Text     string
	Partial  bool
}

// Buffer contains the most recent entries of all sources, in the order in which they were written.
type Buffer struct {
	now func() time.Time

	mu           sync.Mutex
	entries      []Entry
	bytes        int
	lastSequence int64
	// changed is closed and replaced when entries are added.
	changed chan struct{}
}

// New returns an empty buffer. now is the clock.
func New(now func() time.Time) *Buffer {
	return &Buffer{now: now, changed: make(chan struct{})}
}

// Writer returns a writer for the output of a source on a stream. It never blocks and never fails. Close adds a last
// line without a line terminator.
func (b *Buffer) Writer(source string, stream sandpoolv1.OutputStream) *Writer {
	return &Writer{buffer: b, source: source, stream: stream}
}

// Log returns Writer as an io.WriteCloser.
func (b *Buffer) Log(source string, stream sandpoolv1.OutputStream) io.WriteCloser {
	return b.Writer(source, stream)
}

// Since returns the entries after a sequence number, the number of entries between that number and the first returned
// entry that were dropped, and a channel that is closed when entries are added.
func (b *Buffer) Since(after int64) (entries []Entry, dropped int64, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.lastSequence + 1
	if len(b.entries) > 0 {
		first = b.entries[0].Sequence
	}
	// Sequence numbers after the last entry are future entries, not dropped ones.
	dropped = max(0, min(first, b.lastSequence+1)-1-after)
	skip := min(max(0, after-(first-1)), int64(len(b.entries)))
	// Entries are never modified, and the memory of dropped entries is not reused, so no copy is needed.
	return b.entries[skip:], dropped, b.changed
}

func (b *Buffer) addLocked(source string, stream sandpoolv1.OutputStream, text []byte, partial bool) {
	b.lastSequence++
	b.entries = append(b.entries, Entry{
		Sequence: b.lastSequence, Time: b.now(), Source: source, Stream: stream,
		Text: strings.ToValidUTF8(string(text), "\uFFFD"), Partial: partial,
	})
	b.bytes += size(b.entries[len(b.entries)-1])
	for b.bytes > maxBytes {
		b.bytes -= size(b.entries[0])
		// The underlying array is released when append allocates the next one.
		b.entries = b.entries[1:]
	}
}

func size(e Entry) int { return len(e.Text) + entryOverhead }

// Writer splits the output of one source on one stream into lines. It must be used by one goroutine only.
type Writer struct {
	buffer  *Buffer
	source  string
	stream  sandpoolv1.OutputStream
	pending []byte
}

// Write implements io.Writer.
func (w *Writer) Write(data []byte) (int, error) {
	w.buffer.mu.Lock()
	defer w.buffer.mu.Unlock()
	written := len(data)
	added := false
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, []byte{'\n'})
		if room := maxLineBytes - len(w.pending); len(line) > room {
			line, rest, ended = data[:room], data[room:], false
		}
		w.pending = append(w.pending, line...)
		data = rest
		switch {
		case ended:
			w.buffer.addLocked(w.source, w.stream, bytes.TrimSuffix(w.pending, []byte{'\r'}), false)
			w.pending = w.pending[:0]
			added = true
		case len(w.pending) == maxLineBytes && len(data) > 0:
			cut := wholeRunes(w.pending)
			w.buffer.addLocked(w.source, w.stream, w.pending[:cut], true)
			w.pending = append(w.pending[:0], w.pending[cut:]...)
			added = true
		}
	}
	if added {
		w.buffer.notifyLocked()
	}
	return written, nil
}

// wholeRunes returns how many bytes of a long line can be used without splitting a character.
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

// Close adds the unterminated rest of the last line.
func (w *Writer) Close() error {
	w.buffer.mu.Lock()
	defer w.buffer.mu.Unlock()
	if len(w.pending) > 0 {
		w.buffer.addLocked(w.source, w.stream, w.pending, false)
		w.pending = nil
		w.buffer.notifyLocked()
	}
	return nil
}

func (b *Buffer) notifyLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}
