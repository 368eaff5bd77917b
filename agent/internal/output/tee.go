package output

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long a file that takes nothing is waited for at the end.
const stuckTime = time.Second

// Teed is a pipe whose content goes to two places.
type Teed struct {
	// WriteEnd is the descriptor to give to the process.
	WriteEnd int

	file *os.File
	done chan struct{}
}

// Tee makes a pipe and passes what is written to it on to a file, and to a log, which is closed at the end. The file may
// make the writer wait, the log never does. A file that cannot be written to any more does not keep lines from the log.
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

// Finish waits until all was passed on, at most until the deadline if somebody still holds the pipe open, and a second
// longer if the file does not take it.
func (t *Teed) Finish(deadline time.Time) {
	// An error means that it is over already.
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
		case errors.Is(err, os.ErrDeadlineExceeded) && takeRest(t.file, *chunk, pass):
			Drain(t.file)
			return
		default:
			t.file.Close()
			return
		}
	}
}
