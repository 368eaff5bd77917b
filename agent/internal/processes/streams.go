package processes

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/output"
)

const (
	// How much is read and sent at once at most.
	chunkBytes = 64 << 10
	// How long output is waited for after its process's end, while background children hold it open.
	outputGrace = 100 * time.Millisecond
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// The two streams, as indexes.
const (
	stdout = iota
	stderr
	streamCount
)

var streamNames = [streamCount]sandpoolv1.OutputStream{
	sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT, sandpoolv1.OutputStream_OUTPUT_STREAM_STDERR,
}

// outputPipe makes a pipe whose reading end the agent waits for without a thread; the process finds an ordinary one.
func outputPipe() (readEnd *os.File, writeEnd int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, -1, err
	}
	return os.NewFile(uintptr(fds[0]), "output"), fds[1], nil
}

// inputPipe is the same for what a process reads.
func inputPipe() (readEnd int, writeEnd *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, err
	}
	if err := unix.SetNonblock(fds[1], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return -1, nil, err
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "input"), nil
}

// pump reads one stream of a run to its end and keeps it. It waits for room before it reads, and so the process waits
// when it writes. ended is closed when the run's process has ended: then what is there is still taken, and what comes
// later is thrown away without disturbing whoever writes it.
func (p *Process) pump(stream int, file *os.File, log io.Writer, ended <-chan struct{}) {
	buffer := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	chunk := (*buffer)[:p.readSize(stream)]
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-ended:
			// An error means that reading is over already.
			_ = file.SetReadDeadline(time.Now().Add(outputGrace))
		case <-stop:
		}
	}()
	for {
		if !p.waitForRoom(stream) {
			break
		}
		n, err := file.Read(chunk)
		p.keep(stream, chunk[:n], log)
		if err == nil {
			continue
		}
		// A terminal that nobody holds open any more says EIO.
		if errors.Is(err, os.ErrDeadlineExceeded) && p.takeRest(stream, file, chunk, log) {
			output.Drain(file)
			return
		}
		break
	}
	file.Close()
}

// takeRest reads what is in the pipe without waiting for more. It says whether somebody still holds the other end.
func (p *Process) takeRest(stream int, file *os.File, chunk []byte, log io.Writer) (open bool) {
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	for p.waitForRoom(stream) {
		var n int
		var failure error
		if err := raw.Control(func(fd uintptr) { n, failure = syscall.Read(int(fd), chunk) }); err != nil {
			return false
		}
		switch {
		case errors.Is(failure, syscall.EINTR):
		case errors.Is(failure, syscall.EAGAIN):
			return true
		case failure != nil || n <= 0:
			return false
		default:
			p.keep(stream, chunk[:n], log)
		}
	}
	return false
}

func (p *Process) keep(stream int, data []byte, log io.Writer) {
	if len(data) == 0 {
		return
	}
	p.mu.Lock()
	before := len(p.rings[stream].bytes)
	p.rings[stream].append(data)
	grown := len(p.rings[stream].bytes) - before
	p.changedLocked()
	p.mu.Unlock()
	if grown > 0 {
		p.registry.account(grown)
	}
	// A log never fails and never waits.
	_, _ = log.Write(data)
}

// waitForRoom returns when more output may be read; false when the process has been forgotten.
func (p *Process) waitForRoom(stream int) bool {
	for {
		p.mu.Lock()
		forgotten, room, changed := p.forgotten, p.hasRoomLocked(stream), p.changed
		p.mu.Unlock()
		if forgotten || room {
			return !forgotten
		}
		<-changed
	}
}

// readSize is how much is read at once at most: two reads always fit.
func (p *Process) readSize(stream int) int {
	return min(chunkBytes, p.rings[stream].limit/2)
}

// hasRoomLocked is whether as much as is read at once can be kept without losing what an attached client is still to be
// sent.
func (p *Process) hasRoomLocked(stream int) bool {
	kept := &p.rings[stream]
	unsent := kept.end
	switch {
	case p.overflow == sandpoolv1.OutputOverflow_OUTPUT_OVERFLOW_DROP_OLDEST:
		return true
	case len(p.watchers) > 0:
		for w := range p.watchers {
			unsent = min(unsent, max(w.sent[stream], kept.begin))
		}
	case p.overflow == sandpoolv1.OutputOverflow_OUTPUT_OVERFLOW_WAIT:
		unsent = max(p.delivered[stream], kept.begin)
	}
	return kept.end-unsent+int64(p.readSize(stream)) <= int64(kept.limit)
}
