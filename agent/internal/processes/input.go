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

// endOfFile is the character (Ctrl-D) that ends the input on a terminal.
const endOfFile = 4

// Write writes input to the process and returns how many bytes the process received in total. If the process does not
// read, Write waits until ctx ends. Bytes that were written before that are counted, so a retry with an offset is safe.
func (p *Process) Write(ctx context.Context, input *sandpoolv1.ProcessInput) (int64, error) {
	p.inputMu.Lock()
	defer p.inputMu.Unlock()
	p.mu.Lock()
	file, received, isTerminal := p.input, p.inputBytes, p.terminal != nil
	p.mu.Unlock()
	data := input.GetData()
	if input.Offset != nil {
		switch at := input.GetOffset(); {
		case at > received:
			return received, rpcerror.About(codes.OutOfRange, reasonOffset, p.request.GetProcessId(),
				"offset %d is after the %d bytes that the process received; continue at offset %d", at, received, received)
		default:
			data = data[min(received-at, int64(len(data))):]
		}
	}
	if file == nil {
		if len(data) == 0 && input.GetClose() {
			return received, nil
		}
		return received, p.errStdinClosed()
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
	received = p.inputBytes
	p.mu.Unlock()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return received, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		p.closeInput()
		return received, p.errStdinClosed()
	}
	if input.GetClose() {
		if isTerminal {
			_, _ = file.Write([]byte{endOfFile})
		} else {
			p.closeInput()
		}
	}
	return received, nil
}

func (p *Process) errStdinClosed() error {
	return rpcerror.About(codes.FailedPrecondition, reasonStdinClosed, p.request.GetProcessId(),
		"process %q has no open standard input; start the process with stdin, and write before it exits or its input is closed",
		p.request.GetProcessId())
}

// closeInput closes the standard input of the process. It does nothing if the input is closed already.
func (p *Process) closeInput() {
	p.mu.Lock()
	file, isTerminal := p.input, p.terminal != nil
	p.input = nil
	p.recordChangedLocked()
	p.mu.Unlock()
	if file != nil && !isTerminal {
		file.Close()
	}
}

// Resize changes the size of the terminal. The kernel notifies the foreground processes by SIGWINCH.
func (p *Process) Resize(size *sandpoolv1.TerminalSize) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal == nil {
		return rpcerror.About(codes.FailedPrecondition, reasonNoTerminal, p.request.GetProcessId(),
			"process %q has no terminal; start the process with a terminal", p.request.GetProcessId())
	}
	if err := setSize(p.terminal, size); err != nil {
		return rpcerror.About(codes.FailedPrecondition, reasonProcessExited, p.request.GetProcessId(),
			"the terminal of process %q is closed; start another process", p.request.GetProcessId())
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

// openTerminal creates a terminal of the given size. It returns the agent's side and the descriptor for the process.
func openTerminal(size *sandpoolv1.TerminalSize) (agentEnd *os.File, childEnd int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, err
	}
	agentEnd = os.NewFile(uintptr(fd), "terminal")
	// TIOCGPTPEER does not use a path, so a file that a process of the sandbox placed in /dev/pts has no effect.
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		agentEnd.Close()
		return nil, -1, err
	}
	if err := setSize(agentEnd, size); err != nil {
		agentEnd.Close()
		return nil, -1, err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		agentEnd.Close()
		return nil, -1, errno
	}
	return agentEnd, int(peer), nil
}
