package logs

import (
	"strings"
	"testing"
	"time"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

const out = sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT

func newBook() *Book { return New(func() time.Time { return time.Unix(7, 0) }) }

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

func TestLinesAreMadeOfPieces(t *testing.T) {
	book := newBook()
	w := book.Writer("web", out)
	write(t, w, "a\nb")
	write(t, w, "c\r\n\nd\xff")
	if entries, _, _ := book.Since(0); texts(entries) != "a|bc|" {
		t.Fatal(texts(entries))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	entries, lost, _ := book.Since(1)
	if texts(entries) != "bc||d\uFFFD" || lost != 0 || entries[0].Sequence != 2 || entries[0].Source != "web" {
		t.Fatal(entries, lost)
	}
}

func TestALongLineComesInPieces(t *testing.T) {
	book := newBook()
	w := book.Writer("web", out)
	write(t, w, strings.Repeat("x", 2*maxLine)+"y\n")
	entries, _, _ := book.Since(0)
	want := strings.Repeat("x", maxLine)
	if texts(entries) != want+"…|"+want+"…|y" {
		t.Fatal(len(entries))
	}
	write(t, w, strings.Repeat("x", maxLine)+"\n")
	if entries, _, _ := book.Since(3); texts(entries) != want {
		t.Fatal("a line that just fits is one entry")
	}
}

func TestALongLineIsNotCutWithinACharacter(t *testing.T) {
	book := newBook()
	w := book.Writer("web", out)
	line := strings.Repeat("x", maxLine-1) + "ä" + strings.Repeat("y", maxLine-3) + "\r" + "z"
	write(t, w, line+"\n")
	entries, _, _ := book.Since(0)
	var whole strings.Builder
	for _, e := range entries {
		whole.WriteString(e.Text)
	}
	if whole.String() != line || len(entries) != 3 {
		t.Fatal(len(entries), whole.Len(), len(line))
	}
}

func TestTheOldestGoAndAreCounted(t *testing.T) {
	book := newBook()
	w := book.Writer("web", out)
	line := strings.Repeat("x", 1000) + "\n"
	for range 3000 {
		write(t, w, line)
	}
	entries, lost, _ := book.Since(0)
	if lost == 0 || lost+int64(len(entries)) != 3000 || book.bytes > maxBytes {
		t.Fatal(lost, len(entries), book.bytes)
	}
	if _, lost, _ := book.Since(entries[0].Sequence - 1); lost != 0 {
		t.Fatal(lost)
	}
	if entries, lost, _ := book.Since(3000); len(entries) != 0 || lost != 0 {
		t.Fatal(entries, lost)
	}
	if entries, lost, _ := book.Since(5000); len(entries) != 0 || lost != 0 {
		t.Fatal(entries, lost)
	}
}

func TestWhoWaitsIsTold(t *testing.T) {
	book := newBook()
	_, _, more := book.Since(0)
	write(t, book.Writer("web", out), "a\n")
	select {
	case <-more:
	default:
		t.Fatal("nobody was told")
	}
}
