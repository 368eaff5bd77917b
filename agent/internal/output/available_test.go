package output

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCapturesBytesInThePipeAtTheDeadline covers a busy machine that reads the pipe only after the deadline.
func TestCapturesBytesInThePipeAtTheDeadline(t *testing.T) {
	for _, closed := range []bool{false, true} {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(fds[0], true); err != nil {
			t.Fatal(err)
		}
		writer := os.NewFile(uintptr(fds[1]), "writer")
		defer writer.Close()
		if _, err := writer.WriteString("in time"); err != nil {
			t.Fatal(err)
		}
		if closed {
			writer.Close()
		}
		c := &Capture{file: os.NewFile(uintptr(fds[0]), "pipe"), limit: 100, done: make(chan struct{})}
		if err := c.file.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		c.run()
		if string(c.Bytes()) != "in time" || c.LeftOpen() == closed {
			t.Errorf("closed %v: %q, left open %v", closed, c.Bytes(), c.LeftOpen())
		}
	}
}
