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

func TestFirstBytesAreKept(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	for _, limit := range []int64{0, 1, 32 << 10, 100_001, int64(len(data)), 1 << 20} {
		capture, writer := start(t, limit)
		write(t, writer, data)
		writer.Close()
		capture.Finish(soon())
		kept := min(limit, int64(len(data)))
		if !bytes.Equal(capture.Bytes(), data[:kept]) {
			t.Errorf("limit %d: kept %d bytes, want the first %d", limit, len(capture.Bytes()), kept)
		}
		if dropped := int64(len(data)) - kept; capture.Dropped() != dropped {
			t.Errorf("limit %d: dropped %d, want %d", limit, capture.Dropped(), dropped)
		}
		if capture.LeftOpen() {
			t.Errorf("limit %d: says that the closed pipe is open", limit)
		}
	}
}

func TestOpenPipeIsLeftAtTheDeadline(t *testing.T) {
	capture, writer := start(t, 100)
	write(t, writer, []byte("before"))
	// A deadline in the past: what is in the pipe has to be returned nevertheless.
	capture.Finish(time.Now().Add(-time.Second))
	if string(capture.Bytes()) != "before" || !capture.LeftOpen() {
		t.Errorf("%q, open %v; want \"before\" and open", capture.Bytes(), capture.LeftOpen())
	}
	// More than a pipe holds: were nobody reading, this would block, and with nobody there at all, fail.
	write(t, writer, make([]byte, 1<<20))
	if string(capture.Bytes()) != "before" {
		t.Error("what came after the deadline was added")
	}
}

func TestProcessGetsABlockingPipe(t *testing.T) {
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
