package output

import (
	"bytes"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lines is a log that a test can read.
type lines struct {
	mu     sync.Mutex
	text   bytes.Buffer
	closed bool
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(data)
}

func (l *lines) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}

func TestTeeCopiesToFileAndLog(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	tee, err := Tee(writer, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(tee.WriteEnd, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	tee.CloseWriteEnd()
	tee.Finish(time.Now().Add(time.Minute))
	writer.Close()
	got := make([]byte, 100)
	n, _ := reader.Read(got)
	if string(got[:n]) != "hello" || log.text.String() != "hello" || !log.closed {
		t.Fatalf("%q %q %v", got[:n], log.text.String(), log.closed)
	}
}

func TestFinishReturnsWhenTheFileAcceptsNoData(t *testing.T) {
	_, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tee, err := Tee(writer, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := unix.Write(tee.WriteEnd, make([]byte, 4096)); err != nil {
				return
			}
		}
	}()
	finished := make(chan struct{})
	go func() {
		tee.Finish(time.Now())
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(20 * time.Second):
		t.Fatal("Finish did not return")
	}
}
