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
	// Maximum number of bytes that are read and sent at once.
	chunkBytes = 64 << 10
	// Time for which output is awaited after the process has exited while background children hold the stream open.
	outputGrace = 100 * time.Millisecond
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// Indexes of the two streams.
const (
	stdout = iota
	stderr
	streamCount
)

var streamTypes = [streamCount]sandpoolv1.OutputStream{
	sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT, sandpoolv1.OutputStream_OUTPUT_STREAM_STDERR,
}

// outputPipe creates a pipe for the output of a process. The agent's end is non-blocking, so waiting uses no thread.
// The process's end is blocking.
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

// inputPipe creates a pipe for the input of a process. The agent's end is non-blocking.
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

// pump reads one stream of a run to its end and buffers it. It reads only while the buffer has room, so a process that
// writes more blocks. When exited is closed, the process of the run has exited: pump reads the remaining output, and
// discards later output without an error for its writers.
func (p *Process) pump(stream int, file *os.File, log io.Writer, exited <-chan struct{}) {
	buffer := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	chunk := (*buffer)[:p.readSize(stream)]
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-exited:
			// An error means that reading has ended already.
			_ = file.SetReadDeadline(time.Now().Add(outputGrace))
		case <-stop:
		}
	}()
	for {
		if !p.waitForRoom(stream) {
			break
		}
		n, err := file.Read(chunk)
		p.store(stream, chunk[:n], log)
		if err == nil {
			continue
		}
		// When all processes have closed a terminal, reading it returns EIO.
		if errors.Is(err, os.ErrDeadlineExceeded) && p.readAvailable(stream, file, chunk, log) {
			output.Drain(file)
			return
		}
		break
	}
	file.Close()
}

// readAvailable reads the content of the pipe without waiting for more. It reports whether another process still holds
// the write end open.
func (p *Process) readAvailable(stream int, file *os.File, chunk []byte, log io.Writer) (open bool) {
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
			p.store(stream, chunk[:n], log)
		}
	}
	return false
}

func (p *Process) store(stream int, data []byte, log io.Writer) {
	if len(data) == 0 {
		return
	}
	p.mu.Lock()
	before := len(p.rings[stream].bytes)
	p.rings[stream].append(data)
	grown := len(p.rings[stream].bytes) - before
	p.notifyLocked()
	p.mu.Unlock()
	if grown > 0 {
		p.registry.addBuffered(grown)
	}
	// The log never fails and never blocks.
	_, _ = log.Write(data)
}

// waitForRoom waits until the buffer has room for more output. It returns false if the process was deleted.
func (p *Process) waitForRoom(stream int) bool {
	for {
		p.mu.Lock()
		deleted, room, changed := p.deleted, p.hasRoomLocked(stream), p.changed
		p.mu.Unlock()
		if deleted || room {
			return !deleted
		}
		<-changed
	}
}

// readSize returns the maximum number of bytes to read at once. Two reads always fit into the buffer.
func (p *Process) readSize(stream int) int {
	return min(chunkBytes, p.rings[stream].limit/2)
}

// hasRoomLocked reports whether readSize bytes can be buffered without dropping bytes that must still be sent to an
// attached client.
func (p *Process) hasRoomLocked(stream int) bool {
	buffer := &p.rings[stream]
	unsent := buffer.end
	switch {
	case p.overflow == sandpoolv1.OutputOverflow_OUTPUT_OVERFLOW_DROP_OLDEST:
		return true
	case len(p.clients) > 0:
		for c := range p.clients {
			unsent = min(unsent, max(c.sent[stream], buffer.start))
		}
	case p.overflow == sandpoolv1.OutputOverflow_OUTPUT_OVERFLOW_WAIT:
		unsent = max(p.delivered[stream], buffer.start)
	}
	return buffer.end-unsent+int64(p.readSize(stream)) <= int64(buffer.limit)
}
