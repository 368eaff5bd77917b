package output_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/output"
)

func start(t *testing.T, limit int64) (*output.Capture, *os.File) {
	t.Helper()
	capture, end, err := output.Start(limit)
	if err != nil {
		t.Fatal(err)
	}
	writer := os.NewFile(uintptr(end), "writer")
	t.Cleanup(func() { writer.Close() })
	return capture, writer
}

func write(t *testing.T, writer *os.File, data []byte) {
	t.Helper()
	if _, err := writer.Write(data); err != nil {
		t.Fatal(err)
	}
}

func soon() time.Time { return time.Now().Add(20 * time.Second) }

func TestCapturesTheFirstBytes(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	for _, limit := range []int64{0, 1, 32 << 10, 100_001, int64(len(data)), 1 << 20} {
		capture, writer := start(t, limit)
		write(t, writer, data)
		writer.Close()
		capture.Finish(soon())
		captured := min(limit, int64(len(data)))
		if !bytes.Equal(capture.Bytes(), data[:captured]) {
			t.Errorf("limit %d: captured %d bytes, want the first %d", limit, len(capture.Bytes()), captured)
		}
		if dropped := int64(len(data)) - captured; capture.Dropped() != dropped {
			t.Errorf("limit %d: dropped %d, want %d", limit, capture.Dropped(), dropped)
		}
		if capture.LeftOpen() {
			t.Errorf("limit %d: LeftOpen is true for a closed pipe", limit)
		}
	}
}

func TestFinishReturnsAtTheDeadlineWhileThePipeIsOpen(t *testing.T) {
	capture, writer := start(t, 100)
	write(t, writer, []byte("before"))
	// The deadline is in the past. Bytes that are in the pipe must be returned anyway.
	capture.Finish(time.Now().Add(-time.Second))
	if string(capture.Bytes()) != "before" || !capture.LeftOpen() {
		t.Errorf("%q, open %v; want \"before\" and open", capture.Bytes(), capture.LeftOpen())
	}
	// This is more than a pipe holds. The write would block if the pipe were not read, and fail if it were closed.
	write(t, writer, make([]byte, 1<<20))
	if string(capture.Bytes()) != "before" {
		t.Error("bytes that were written after the deadline were captured")
	}
}

func TestWriteEndIsBlocking(t *testing.T) {
	_, end, err := output.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(end)
	flags, err := unix.FcntlInt(uintptr(end), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v; want a blocking file", flags, err)
	}
}
