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
	// How long a call waits for its output's end after the command's: as good as nothing unless background children
	// hold the pipes open, and then this much.
	outputGrace = 100 * time.Millisecond
	// What a shell adds to a signal's number to report a child that died of it.
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
		return nil, rpcerror.New(codes.ResourceExhausted, reasonCommandLimit, "%d commands run in this sandbox already", maxCommands)
	}
	p, err := s.makePlan(wish{
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

func (s *Server) outputLimit(wanted int64) int64 {
	if wanted > 0 {
		return wanted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := s.defaults.GetMaxOutputBytes(); limit > 0 {
		return limit
	}
	return defaultOutputBytes
}

// run starts a planned command and follows it to its end. A time-out of 0 never passes.
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
		End:                  s.endOf(started, kills, reason),
		Duration:             durationpb.New(durationOf(started)),
		OutputLeftOpen:       streams.stdout.LeftOpen() || streams.stderr.LeftOpen(),
	}, nil
}

// await waits for the command's end and kills its tree when it has to be brought about. The reason is UNSPECIFIED for a
// command that ended by itself; the error is that of the call's context.
func (s *Server) await(
	ctx context.Context, started *process.Process, timeout time.Duration,
) (agentv1.EndReason, error) {
	passed, cancel := s.after(timeout)
	defer cancel()
	select {
	case <-started.Done():
		return s.reasonWhenStopping(), nil
	case <-passed:
		killTree(started)
		return agentv1.EndReason_END_REASON_TIMED_OUT, nil
	case <-ctx.Done():
		killTree(started)
		return agentv1.EndReason_END_REASON_UNSPECIFIED, status.FromContextError(ctx.Err()).Err()
	}
}

// reasonWhenStopping is SHUT_DOWN if the agent is ending all processes, and else UNSPECIFIED.
func (s *Server) reasonWhenStopping() agentv1.EndReason {
	select {
	case <-s.stopping:
		return agentv1.EndReason_END_REASON_SHUT_DOWN
	default:
		return agentv1.EndReason_END_REASON_UNSPECIFIED
	}
}

// killTree kills a command with all its descendants. It returns when they are gone and the command itself is reaped, or
// when the kernel has not let go of them for long.
func killTree(started *process.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	if err := started.KillTree(ctx); err != nil {
		slog.Warn("cannot kill a whole process tree", "pid", started.PID, "error", err)
	}
	select {
	case <-started.Done():
	case <-ctx.Done():
	}
}

// endOf says how a process ended. forced is the agent's own reason, UNSPECIFIED if it had none.
func (s *Server) endOf(started *process.Process, killsBefore int64, forced agentv1.EndReason) *agentv1.ProcessEnd {
	end := &agentv1.ProcessEnd{Reason: forced, OomKills: max(s.oomKills()-killsBefore, 0)}
	killed := true
	select {
	case <-started.Done():
		wait := started.Status()
		if wait.Signaled() {
			end.Status = &agentv1.ProcessEnd_Signal{Signal: int32(wait.Signal())}
			killed = wait.Signal() == unix.SIGKILL
		} else {
			end.Status = &agentv1.ProcessEnd_ExitCode{ExitCode: int32(wait.ExitStatus())}
			killed = wait.ExitStatus() == exitCodeKilled
		}
	default:
		// Killed, but still held by the kernel: SIGKILL is what it will end by.
		end.Status = &agentv1.ProcessEnd_Signal{Signal: int32(unix.SIGKILL)}
	}
	if forced != agentv1.EndReason_END_REASON_UNSPECIFIED {
		return end
	}
	_, signaled := end.GetStatus().(*agentv1.ProcessEnd_Signal)
	switch {
	case killed && end.GetOomKills() > 0:
		end.Reason = agentv1.EndReason_END_REASON_OOM_KILLED
	case signaled:
		end.Reason = agentv1.EndReason_END_REASON_SIGNALED
	default:
		end.Reason = agentv1.EndReason_END_REASON_EXITED
	}
	return end
}

// oomKills is the kernel's count, 0 where it is unknown.
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
		// The captures end by themselves, with the closing of the ends to write to.
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
	// fd is what the process gets.
	fd int
	// ownFD is whether fd is to be closed here.
	ownFD bool
	// writer is the pipe's other end; nil if there is nothing to write.
	writer *os.File
}

// openStdin makes a standard input. Without input it is /dev/null rather than an empty pipe: programs such as ripgrep
// take a pipe for a wish to have it read.
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

// feed writes the input in the background. A process that does not read it all is no error.
func (i *stdin) feed(input []byte) {
	if i.writer == nil {
		return
	}
	go func() {
		defer i.writer.Close()
		_, _ = i.writer.Write(input)
	}()
}

// abandon ends the writing, whatever is left.
func (i *stdin) abandon() {
	if i.writer != nil {
		_ = i.writer.Close()
	}
}

func pipeError(err error) error {
	if resource := resourceError(err); resource != nil {
		return resource
	}
	return rpcerror.New(codes.Internal, reasonStartFailed, "cannot make a pipe: %v", err)
}
