package processes

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

// endOfFile is the character by which a terminal's user ends input.
const endOfFile = 4

// Write gives input to the process and says how many bytes it was given in all. It waits for a process that does not
// read until ctx ends; what was taken until then is counted, so a retry with an offset is safe.
func (p *Process) Write(ctx context.Context, input *sandpoolv1.ProcessInput) (int64, error) {
	p.inputMu.Lock()
	defer p.inputMu.Unlock()
	p.mu.Lock()
	file, given, isTerminal := p.input, p.inputBytes, p.terminal != nil
	p.mu.Unlock()
	data := input.GetData()
	if input.Offset != nil {
		switch at := input.GetOffset(); {
		case at > given:
			return given, rpcerror.About(codes.OutOfRange, reasonOffset, p.request.GetProcessId(),
				"the process was given %d bytes so far, bytes before offset %d are missing", given, at)
		default:
			data = data[min(given-at, int64(len(data))):]
		}
	}
	if file == nil {
		if len(data) == 0 && input.GetClose() {
			return given, nil
		}
		return given, p.errStdinClosed()
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = file.SetWriteDeadline(time.Unix(1, 0))
	})
	n, err := file.Write(data)
	if !stop() {
		<-cut
		_ = file.SetWriteDeadline(time.Time{})
	}
	p.mu.Lock()
	p.inputBytes += int64(n)
	given = p.inputBytes
	p.mu.Unlock()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return given, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		p.closeInput()
		return given, p.errStdinClosed()
	}
	if input.GetClose() {
		if isTerminal {
			_, _ = file.Write([]byte{endOfFile})
		} else {
			p.closeInput()
		}
	}
	return given, nil
}

func (p *Process) errStdinClosed() error {
	return rpcerror.About(codes.FailedPrecondition, reasonStdinClosed, p.request.GetProcessId(),
		"the process has no open standard input: start it with stdin, and write before it is closed or the process ends")
}

// closeInput ends the process's standard input, once.
func (p *Process) closeInput() {
	p.mu.Lock()
	file, isTerminal := p.input, p.terminal != nil
	p.input = nil
	p.noteLocked()
	p.mu.Unlock()
	if file != nil && !isTerminal {
		file.Close()
	}
}

// Resize changes the terminal's size; its foreground processes hear of it by SIGWINCH.
func (p *Process) Resize(size *sandpoolv1.TerminalSize) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal == nil {
		return rpcerror.About(codes.FailedPrecondition, reasonNoTerminal, p.request.GetProcessId(),
			"the process has no terminal; start it with one")
	}
	if err := setSize(p.terminal, size); err != nil {
		return rpcerror.About(codes.FailedPrecondition, reasonProcessEnded, p.request.GetProcessId(), "the terminal is closed")
	}
	p.size = size
	return nil
}

func setSize(terminal *os.File, size *sandpoolv1.TerminalSize) error {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		failure = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ,
			&unix.Winsize{Row: uint16(size.GetRows()), Col: uint16(size.GetCols())})
	})
	return errors.Join(err, failure)
}

// openTerminal makes a terminal of that size: the agent's side, and the descriptor to give to the process.
func openTerminal(size *sandpoolv1.TerminalSize) (own *os.File, theirs int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, err
	}
	own = os.NewFile(uintptr(fd), "terminal")
	// TIOCGPTPEER needs no path, so nothing that the sandbox put into /dev/pts can come in between.
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		own.Close()
		return nil, -1, err
	}
	if err := setSize(own, size); err != nil {
		own.Close()
		return nil, -1, err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		own.Close()
		return nil, -1, errno
	}
	return own, int(peer), nil
}
