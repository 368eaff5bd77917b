// Package output captures the first bytes that a process writes to a pipe and counts the others.
package output

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	chunkSize = 32 << 10
	// Maximum capacity of a pipe that an unprivileged process can set (/proc/sys/fs/pipe-max-size).
	maxPipeSize = 1 << 20
	// Maximum number of pipes that background children hold open and that are still read, so that the children do not
	// get SIGPIPE. Further pipes are closed.
	maxDrains = 128
)

var (
	chunks = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}
	drains = make(chan struct{}, maxDrains)
)

// Capture reads one pipe.
type Capture struct {
	file  *os.File
	limit int64
	done  chan struct{}

	captured []byte
	dropped  int64
	leftOpen bool
}

// Start creates a pipe and reads it in the background. It captures the first limit bytes. The caller must close the
// returned write end after the process has it.
func Start(limit int64) (capture *Capture, writeEnd int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	// Only the read end is non-blocking. The process must get a blocking pipe.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, -1, err
	}
	c := &Capture{file: os.NewFile(uintptr(fds[0]), "pipe"), limit: limit, done: make(chan struct{})}
	go c.run()
	return c, fds[1], nil
}

// Finish waits for the end of the output, at most until the deadline. Bytes that are in the pipe at the deadline are
// captured. Later bytes are discarded without an error for their writers.
func (c *Capture) Finish(deadline time.Time) {
	// An error means that run has closed the file already.
	_ = c.file.SetReadDeadline(deadline)
	<-c.done
}

// Bytes returns the captured bytes. Call it after Finish.
func (c *Capture) Bytes() []byte { return c.captured }

// Dropped returns the number of bytes that were not captured. Call it after Finish.
func (c *Capture) Dropped() int64 { return c.dropped }

// LeftOpen reports whether the pipe was still open for writing at the deadline. Call it after Finish.
func (c *Capture) LeftOpen() bool { return c.leftOpen }

func (c *Capture) run() {
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	for {
		n, err := c.file.Read(*chunk)
		c.store((*chunk)[:n])
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.leftOpen = readAvailable(c.file, *chunk, c.store)
		}
		break
	}
	if c.leftOpen {
		Drain(c.file)
	} else {
		c.file.Close()
	}
	close(c.done)
}

// readAvailable reads the content of the pipe without waiting for more. It is necessary because the deadline can expire
// before a busy machine has read the pipe. It reports whether another process still holds the write end open.
func readAvailable(file *os.File, chunk []byte, store func([]byte)) (open bool) {
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	var taken int
	err = raw.Control(func(fd uintptr) {
		for taken < maxPipeSize {
			n, err := syscall.Read(int(fd), chunk)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if n <= 0 {
				open = errors.Is(err, syscall.EAGAIN)
				return
			}
			taken += n
			store(chunk[:n])
		}
		open = true
	})
	return err == nil && open
}

func (c *Capture) store(data []byte) {
	room := max(c.limit-int64(len(c.captured)), 0)
	n := min(room, int64(len(data)))
	c.captured = append(c.captured, data[:n]...)
	c.dropped += int64(len(data)) - n
}

// Drain discards the bytes that are written to the pipe from now on, until the last writer closes it.
func Drain(file *os.File) {
	select {
	case drains <- struct{}{}:
	default:
		file.Close()
		return
	}
	go func() {
		defer func() { <-drains }()
		defer file.Close()
		if err := file.SetReadDeadline(time.Time{}); err == nil {
			// Returns when the writers have closed the pipe. The result is not needed.
			_, _ = io.Copy(io.Discard, file)
		}
	}()
}
