package output

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Time for which Finish waits for a file that accepts no data.
const stuckTime = time.Second

// Teed is a pipe whose content is copied to two destinations.
type Teed struct {
	// WriteEnd is the descriptor for the process.
	WriteEnd int

	file *os.File
	done chan struct{}
}

// Tee creates a pipe and copies its content to a file and to a log. It closes the log at the end. The file can block
// the writer, the log never does. If the file can no longer be written, the log still gets all lines.
func Tee(file *os.File, log io.WriteCloser) (*Teed, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, err
	}
	t := &Teed{WriteEnd: fds[1], file: os.NewFile(uintptr(fds[0]), "pipe"), done: make(chan struct{})}
	go t.run(file, log)
	return t, nil
}

// CloseWriteEnd closes the agent's copy of WriteEnd.
func (t *Teed) CloseWriteEnd() { unix.Close(t.WriteEnd) }

// Finish waits until everything was copied. If another process holds the pipe open, it waits until the deadline. If the
// file accepts no data, it waits one second longer.
func (t *Teed) Finish(deadline time.Time) {
	// An error means that the copying has ended already.
	_ = t.file.SetReadDeadline(deadline)
	timer := time.NewTimer(time.Until(deadline) + stuckTime)
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
	}
}

func (t *Teed) run(file *os.File, log io.WriteCloser) {
	defer close(t.done)
	defer log.Close()
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	pass := func(data []byte) {
		_, _ = log.Write(data)
		_, _ = file.Write(data)
	}
	for {
		n, err := t.file.Read(*chunk)
		if n > 0 {
			pass((*chunk)[:n])
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && readAvailable(t.file, *chunk, pass):
			Drain(t.file)
			return
		default:
			t.file.Close()
			return
		}
	}
}
