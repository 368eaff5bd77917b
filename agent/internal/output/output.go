// Package output keeps the first bytes that a process writes to a pipe and counts the rest.
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
	// The most that a pipe may hold unless a privileged process enlarged it (/proc/sys/fs/pipe-max-size).
	maxPipeSize = 1 << 20
	// Pipes that background children left open and that are still read so that the children do not die of SIGPIPE.
	// Beyond so many of them the oldest way of all systems applies: the pipe breaks.
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

	kept     []byte
	dropped  int64
	leftOpen bool
}

// Start makes a pipe and reads it in the background, keeping the first limit bytes. The returned descriptor is the end
// to write to; the caller closes it once the process has it.
func Start(limit int64) (capture *Capture, writeEnd int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	// The reading end alone: the process must find an ordinary, blocking pipe.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, -1, err
	}
	c := &Capture{file: os.NewFile(uintptr(fds[0]), "pipe"), limit: limit, done: make(chan struct{})}
	go c.run()
	return c, fds[1], nil
}

// Finish waits for the end of the output, at most until the deadline: what is in the pipe by then belongs to it, what
// comes later is thrown away without disturbing whoever writes it.
func (c *Capture) Finish(deadline time.Time) {
	// An error means that run is done with the file already.
	_ = c.file.SetReadDeadline(deadline)
	<-c.done
}

// Bytes is what was kept. To be called after Finish.
func (c *Capture) Bytes() []byte { return c.kept }

// Dropped is the number of bytes beyond those kept. To be called after Finish.
func (c *Capture) Dropped() int64 { return c.dropped }

// LeftOpen is whether the pipe was still open for writing at the deadline. To be called after Finish.
func (c *Capture) LeftOpen() bool { return c.leftOpen }

func (c *Capture) run() {
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	for {
		n, err := c.file.Read(*chunk)
		c.keep((*chunk)[:n])
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.leftOpen = takeRest(c.file, *chunk, c.keep)
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

// takeRest reads what is in the pipe without waiting for more, for the deadline may pass before a busy machine has come
// to reading. It says whether somebody still holds the other end.
func takeRest(file *os.File, chunk []byte, keep func([]byte)) (open bool) {
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
			keep(chunk[:n])
		}
		open = true
	})
	return err == nil && open
}

func (c *Capture) keep(data []byte) {
	room := max(c.limit-int64(len(c.kept)), 0)
	n := min(room, int64(len(data)))
	c.kept = append(c.kept, data[:n]...)
	c.dropped += int64(len(data)) - n
}

// Drain throws away what is written to the pipe from now on, until its last writer is gone.
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
			// Ends with the writers; what it returns is of no use to anyone.
			_, _ = io.Copy(io.Discard, file)
		}
	}()
}
