package service

import (
	"context"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	"sandpool/agent/internal/output"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/rpcerror"
)

const (
	// Time for which a call waits for the end of the output after the command has exited. It matters only if background
	// children hold the pipes open.
	outputGrace = 100 * time.Millisecond
	// A shell reports a child that was ended by a signal with this number plus the number of the signal.
	exitCodeSignal = 128
	exitCodeKilled = exitCodeSignal + int(unix.SIGKILL)
)

// RunCommand implements AgentService.
func (s *Server) RunCommand(ctx context.Context, request *agentv1.RunCommandRequest) (*agentv1.RunCommandResponse, error) {
	if err := s.checkRunning(); err != nil {
		return nil, err
	}
	if err := checkRunCommand(request); err != nil {
		return nil, err
	}
	defer s.running.Add(-1)
	if s.running.Add(1) > maxCommands {
		return nil, rpcerror.New(codes.ResourceExhausted, reasonCommandLimit,
			"%d commands are running in this sandbox, which is the limit; wait until one exits", maxCommands)
	}
	p, err := s.makePlan(commandRequest{
		argv:        request.GetArgv(),
		shell:       request.GetShell(),
		environment: request.GetEnvironment(),
		dir:         request.GetWorkingDirectory(),
		user:        request.GetUser(),
	})
	if err != nil {
		return nil, err
	}
	return s.run(ctx, p, request.GetStdin(), request.GetTimeout().AsDuration(), s.outputLimit(request.GetMaxOutputBytes()))
}

func (s *Server) outputLimit(requested int64) int64 {
	if requested > 0 {
		return requested
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := s.defaults.GetMaxOutputBytes(); limit > 0 {
		return limit
	}
	return defaultOutputBytes
}

// run starts a planned command and waits until it has exited. A timeout of 0 never expires.
func (s *Server) run(
	ctx context.Context, p *plan, input []byte, timeout time.Duration, outputLimit int64,
) (*agentv1.RunCommandResponse, error) {
	kills := s.oomKills()
	started, streams, err := s.startWithStreams(p, input, outputLimit)
	if err != nil {
		return nil, err
	}
	reason, err := s.await(ctx, started, timeout)
	streams.finish(time.Now().Add(outputGrace))
	if err != nil {
		return nil, err
	}
	return &agentv1.RunCommandResponse{
		Stdout:               streams.stdout.Bytes(),
		Stderr:               streams.stderr.Bytes(),
		StdoutTruncatedBytes: streams.stdout.Dropped(),
		StderrTruncatedBytes: streams.stderr.Dropped(),
		Exit:                 s.exitOf(started, kills, reason),
		Duration:             durationpb.New(durationOf(started)),
		OutputLeftOpen:       streams.stdout.LeftOpen() || streams.stderr.LeftOpen(),
	}, nil
}

// await waits until the command has exited, and kills its tree when the timeout expires or ctx ends. The reason is
// UNSPECIFIED for a command that exited by itself. The error is that of ctx.
func (s *Server) await(
	ctx context.Context, started *process.Process, timeout time.Duration,
) (agentv1.ExitReason, error) {
	passed, cancel := s.after(timeout)
	defer cancel()
	select {
	case <-started.Done():
		return s.reasonWhenStopping(), nil
	case <-passed:
		killTree(started)
		return agentv1.ExitReason_EXIT_REASON_TIMED_OUT, nil
	case <-ctx.Done():
		killTree(started)
		return agentv1.ExitReason_EXIT_REASON_UNSPECIFIED, status.FromContextError(ctx.Err()).Err()
	}
}

// reasonWhenStopping returns SHUT_DOWN if the agent is stopping, otherwise UNSPECIFIED.
func (s *Server) reasonWhenStopping() agentv1.ExitReason {
	select {
	case <-s.stopping:
		return agentv1.ExitReason_EXIT_REASON_SHUT_DOWN
	default:
		return agentv1.ExitReason_EXIT_REASON_UNSPECIFIED
	}
}

// killTree kills a command with all of its descendants. It returns when they have ended and the command was reaped, or
// when the maximum time to wait for killed processes has passed.
func killTree(started *process.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	if err := started.KillTree(ctx); err != nil {
		slog.Warn("killing a process tree failed", "pid", started.PID, "error", err)
	}
	select {
	case <-started.Done():
	case <-ctx.Done():
	}
}

// exitOf returns how a process exited. forced is the reason for which the agent killed it, UNSPECIFIED if it did not.
func (s *Server) exitOf(started *process.Process, killsBefore int64, forced agentv1.ExitReason) *agentv1.ProcessExit {
	exit := &agentv1.ProcessExit{Reason: forced, OomKills: max(s.oomKills()-killsBefore, 0)}
	killed := true
	select {
	case <-started.Done():
		wait := started.Status()
		if wait.Signaled() {
			exit.Status = &agentv1.ProcessExit_Signal{Signal: int32(wait.Signal())}
			killed = wait.Signal() == unix.SIGKILL
		} else {
			exit.Status = &agentv1.ProcessExit_ExitCode{ExitCode: int32(wait.ExitStatus())}
			killed = wait.ExitStatus() == exitCodeKilled
		}
	default:
		// The process was killed, but is still held by the kernel. It will exit by SIGKILL.
		exit.Status = &agentv1.ProcessExit_Signal{Signal: int32(unix.SIGKILL)}
	}
	if forced != agentv1.ExitReason_EXIT_REASON_UNSPECIFIED {
		return exit
	}
	_, signaled := exit.GetStatus().(*agentv1.ProcessExit_Signal)
	switch {
	case killed && exit.GetOomKills() > 0:
		exit.Reason = agentv1.ExitReason_EXIT_REASON_OOM_KILLED
	case signaled:
		exit.Reason = agentv1.ExitReason_EXIT_REASON_SIGNALED
	default:
		exit.Reason = agentv1.ExitReason_EXIT_REASON_EXITED
	}
	return exit
}

// oomKills returns the kernel's count, or 0 if it is unknown.
func (s *Server) oomKills() int64 {
	kills, _ := s.countKills()
	return kills
}

func durationOf(started *process.Process) time.Duration {
	select {
	case <-started.Done():
		return started.EndTime().Sub(started.StartTime)
	default:
		return time.Since(started.StartTime)
	}
}

// streams are the standard streams of a command.
type streams struct {
	stdin  *stdin
	stdout *output.Capture
	stderr *output.Capture
}

func (s *Server) startWithStreams(p *plan, input []byte, limit int64) (*process.Process, *streams, error) {
	stdin, err := s.openStdin(input)
	if err != nil {
		return nil, nil, err
	}
	defer stdin.closeChildEnd()
	stdout, stdoutEnd, err := output.Start(limit)
	if err != nil {
		stdin.abandon()
		return nil, nil, pipeError(err)
	}
	defer unix.Close(stdoutEnd)
	stderr, stderrEnd, err := output.Start(limit)
	if err != nil {
		stdin.abandon()
		return nil, nil, pipeError(err)
	}
	defer unix.Close(stderrEnd)
	p.spec.Stdin, p.spec.Stdout, p.spec.Stderr = stdin.fd, stdoutEnd, stderrEnd
	started, err := s.start(p)
	if err != nil {
		// The captures end when the write ends are closed.
		stdin.abandon()
		return nil, nil, err
	}
	stdin.feed(input)
	return started, &streams{stdin: stdin, stdout: stdout, stderr: stderr}, nil
}

func (s *streams) finish(deadline time.Time) {
	s.stdin.abandon()
	s.stdout.Finish(deadline)
	s.stderr.Finish(deadline)
}

// stdin is the standard input of a process: /dev/null, or a pipe with given bytes.
type stdin struct {
	// fd is the descriptor for the process.
	fd int
	// ownFD is set if fd must be closed here.
	ownFD bool
	// writer is the write end of the pipe; nil if there is nothing to write.
	writer *os.File
}

// openStdin creates a standard input. Without input it is /dev/null instead of an empty pipe, because some programs,
// for example ripgrep, read standard input if it is a pipe.
func (s *Server) openStdin(input []byte) (*stdin, error) {
	if len(input) == 0 && s.nullFile >= 0 {
		return &stdin{fd: s.nullFile}, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, pipeError(err)
	}
	if len(input) == 0 {
		unix.Close(fds[1])
		return &stdin{fd: fds[0], ownFD: true}, nil
	}
	if err := unix.SetNonblock(fds[1], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, pipeError(err)
	}
	return &stdin{fd: fds[0], ownFD: true, writer: os.NewFile(uintptr(fds[1]), "stdin")}, nil
}

func (i *stdin) closeChildEnd() {
	if i.ownFD {
		unix.Close(i.fd)
	}
}

// feed writes the input in the background. It is not an error if the process does not read all of it.
func (i *stdin) feed(input []byte) {
	if i.writer == nil {
		return
	}
	go func() {
		defer i.writer.Close()
		_, _ = i.writer.Write(input)
	}()
}

// abandon stops the writing, even if input is left.
func (i *stdin) abandon() {
	if i.writer != nil {
		_ = i.writer.Close()
	}
}

func pipeError(err error) error {
	if resource := resourceError(err); resource != nil {
		return resource
	}
	return rpcerror.New(codes.Internal, reasonStartFailed, "creating a pipe failed: %v", err)
}
