package logs

import (
	"strings"
	"testing"
	"time"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

const out = sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT

func newBuffer() *Buffer { return New(func() time.Time { return time.Unix(7, 0) }) }

func write(t *testing.T, w *Writer, text string) {
	t.Helper()
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
}

func texts(entries []Entry) string {
	var all []string
	for _, e := range entries {
		text := e.Text
		if e.Partial {
			text += "…"
		}
		all = append(all, text)
	}
	return strings.Join(all, "|")
}

func TestWriterAssemblesLines(t *testing.T) {
	buffer := newBuffer()
	w := buffer.Writer("web", out)
	write(t, w, "a\nb")
	write(t, w, "c\r\n\nd\xff")
	if entries, _, _ := buffer.Since(0); texts(entries) != "a|bc|" {
		t.Fatal(texts(entries))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	entries, dropped, _ := buffer.Since(1)
	if texts(entries) != "bc||d\uFFFD" || dropped != 0 || entries[0].Sequence != 2 || entries[0].Source != "web" {
		t.Fatal(entries, dropped)
	}
}

func TestWriterSplitsLongLines(t *testing.T) {
	buffer := newBuffer()
	w := buffer.Writer("web", out)
	write(t, w, strings.Repeat("x", 2*maxLineBytes)+"y\n")
	entries, _, _ := buffer.Since(0)
	want := strings.Repeat("x", maxLineBytes)
	if texts(entries) != want+"…|"+want+"…|y" {
		t.Fatal(len(entries))
	}
	write(t, w, strings.Repeat("x", maxLineBytes)+"\n")
	if entries, _, _ := buffer.Since(3); texts(entries) != want {
		t.Fatal("a line of exactly the maximum length was split")
	}
}

func TestWriterDoesNotSplitCharacters(t *testing.T) {
	buffer := newBuffer()
	w := buffer.Writer("web", out)
	line := strings.Repeat("x", maxLineBytes-1) + "ä" + strings.Repeat("y", maxLineBytes-3) + "\r" + "z"
	write(t, w, line+"\n")
	entries, _, _ := buffer.Since(0)
	var whole strings.Builder
	for _, e := range entries {
		whole.WriteString(e.Text)
	}
	if whole.String() != line || len(entries) != 3 {
		t.Fatal(len(entries), whole.Len(), len(line))
	}
}

func TestBufferDropsAndCountsOldestEntries(t *testing.T) {
	buffer := newBuffer()
	w := buffer.Writer("web", out)
	line := strings.Repeat("x", 1000) + "\n"
	for range 3000 {
		write(t, w, line)
	}
	entries, dropped, _ := buffer.Since(0)
	if dropped == 0 || dropped+int64(len(entries)) != 3000 || buffer.bytes > maxBytes {
		t.Fatal(dropped, len(entries), buffer.bytes)
	}
	if _, dropped, _ := buffer.Since(entries[0].Sequence - 1); dropped != 0 {
		t.Fatal(dropped)
	}
	if entries, dropped, _ := buffer.Since(3000); len(entries) != 0 || dropped != 0 {
		t.Fatal(entries, dropped)
	}
	if entries, dropped, _ := buffer.Since(5000); len(entries) != 0 || dropped != 0 {
		t.Fatal(entries, dropped)
	}
}

func TestWriteClosesTheChannelOfSince(t *testing.T) {
	buffer := newBuffer()
	_, _, more := buffer.Since(0)
	write(t, buffer.Writer("web", out), "a\n")
	select {
	case <-more:
	default:
		t.Fatal("the channel is still open")
	}
}
