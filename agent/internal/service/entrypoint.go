package service

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/output"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/rpcerror"
)

// entrypointSource is the source of the entrypoint's lines in the log.
const entrypointSource = "entrypoint"

// entrypoint is the command that runs alongside all other commands. Server.mu guards it.
type entrypoint struct {
	// argv and process are set after the start.
	argv    []string
	process *process.Process
	// failure is the message of the last failed start.
	failure string
	// exit is set after the process has exited.
	exit *agentv1.ProcessExit
}

func (e *entrypoint) status() *agentv1.EntrypointStatus {
	result := &agentv1.EntrypointStatus{State: agentv1.EntrypointState_ENTRYPOINT_STATE_NONE}
	if e.process != nil {
		result.State = agentv1.EntrypointState_ENTRYPOINT_STATE_RUNNING
		result.Pid = int32(e.process.PID)
		result.StartTime = timestamppb.New(e.process.StartTime)
	} else if e.failure != "" {
		result.State = agentv1.EntrypointState_ENTRYPOINT_STATE_FAILED
		result.Error = e.failure
	}
	if e.exit != nil {
		result.State = agentv1.EntrypointState_ENTRYPOINT_STATE_EXITED
		result.EndTime = timestamppb.New(e.process.EndTime())
		result.Exit = e.exit
	}
	return result
}

// Configure implements AgentService.
func (s *Server) Configure(_ context.Context, request *agentv1.ConfigureRequest) (*agentv1.ConfigureResponse, error) {
	s.configureMu.Lock()
	defer s.configureMu.Unlock()
	if err := s.checkRunning(); err != nil {
		return nil, err
	}
	if err := s.applyConfiguration(request); err != nil {
		return nil, err
	}
	if request.GetEntrypoint() != nil {
		if err := s.startEntrypoint(request.GetEntrypoint().GetArgv()); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &agentv1.ConfigureResponse{Entrypoint: s.entrypoint.status()}, nil
}

// applyConfiguration validates the complete request, then applies all of it except the entrypoint.
func (s *Server) applyConfiguration(request *agentv1.ConfigureRequest) error {
	if err := checkDefaults(request.GetDefaults()); err != nil {
		return err
	}
	if err := checkReserved("environment", request.GetEnvironment()); err != nil {
		return err
	}
	if request.GetEntrypoint() != nil {
		if err := checkArgv("entrypoint.argv", request.GetEntrypoint().GetArgv()); err != nil {
			return err
		}
	}
	if err := checkFileLimit("max_file_bytes", request.GetMaxFileBytes()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	merged := s.environment
	if len(request.GetEnvironment()) > 0 {
		// Create a new map each time, because plans read the previous one without the lock.
		merged = make(map[string]string, len(s.environment)+len(request.GetEnvironment()))
		maps.Copy(merged, s.environment)
		maps.Copy(merged, request.GetEnvironment())
		if err := checkEnvironment("environment", merged); err != nil {
			return err
		}
	}
	if requested := request.GetEntrypoint(); requested != nil && s.entrypoint.conflicts(requested.GetArgv()) {
		return rpcerror.New(codes.FailedPrecondition, reasonEntrypointConflict,
			"a different entrypoint was started in this sandbox; create another sandbox")
	}
	if err := s.limitFiles(request.GetMaxFileBytes()); err != nil {
		return err
	}
	s.environment = merged
	if request.GetDefaults() != nil {
		defaults := proto.CloneOf(request.GetDefaults())
		maps.DeleteFunc(defaults.Environment, func(name, _ string) bool { return strings.HasPrefix(name, reservedPrefix) })
		s.defaults = defaults
		s.configured = true
	}
	return nil
}

// limitFiles limits the files that processes can write if they start after this call; 0 changes nothing. mu must be
// held.
func (s *Server) limitFiles(bytes int64) error {
	if bytes == 0 || bytes == s.fileLimit {
		return nil
	}
	if err := s.launcher.LimitFileSize(uint64(bytes)); err != nil {
		return rpcerror.New(codes.FailedPrecondition, reasonFileSizeFixed,
			"setting the file size limit to %d bytes failed, it remains %d: %v", bytes, s.fileLimit, err)
	}
	s.fileLimit = bytes
	return nil
}

// conflicts reports whether a different entrypoint was started.
func (e *entrypoint) conflicts(argv []string) bool {
	return e.process != nil && !slices.Equal(e.argv, argv)
}

// startEntrypoint starts the entrypoint unless it was started already. configureMu must be held.
func (s *Server) startEntrypoint(argv []string) error {
	s.mu.Lock()
	done := s.entrypoint.process != nil
	s.mu.Unlock()
	if done {
		return nil
	}
	kills := s.oomKills()
	started, err := s.launchEntrypoint(argv)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.entrypoint = entrypoint{failure: status.Convert(err).Message()}
		return err
	}
	s.entrypoint = entrypoint{argv: slices.Clone(argv), process: started}
	go s.followEntrypoint(started, kills)
	return nil
}

func (s *Server) launchEntrypoint(argv []string) (*process.Process, error) {
	p, err := s.makePlan(commandRequest{argv: argv})
	if err != nil {
		return nil, err
	}
	p.commandField = "entrypoint.argv"
	stdin, err := s.openStdin(nil)
	if err != nil {
		return nil, err
	}
	defer stdin.closeChildEnd()
	p.spec.Stdin = stdin.fd
	stdout, err := output.Tee(os.Stdout, s.log(entrypointSource, sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT))
	if err != nil {
		stdin.abandon()
		return nil, pipeError(err)
	}
	defer stdout.CloseWriteEnd()
	stderr, err := output.Tee(os.Stderr, s.log(entrypointSource, sandpoolv1.OutputStream_OUTPUT_STREAM_STDERR))
	if err != nil {
		stdin.abandon()
		return nil, pipeError(err)
	}
	defer stderr.CloseWriteEnd()
	p.spec.Stdout, p.spec.Stderr = stdout.WriteEnd, stderr.WriteEnd
	started, err := s.start(p)
	if err == nil {
		s.tees = []*output.Teed{stdout, stderr}
	}
	return started, err
}

func (s *Server) followEntrypoint(started *process.Process, killsBefore int64) {
	<-started.Done()
	// Wait for the last output, because the agent exits after the entrypoint.
	deadline := time.Now().Add(outputGrace)
	for _, tee := range s.tees {
		tee.Finish(deadline)
	}
	exit := s.exitOf(started, killsBefore, s.reasonWhenStopping())
	s.mu.Lock()
	s.entrypoint.exit = exit
	s.mu.Unlock()
	slog.Info("entrypoint exited", "reason", exit.GetReason().String(), "exit_code", exit.GetExitCode(),
		"signal", exit.GetSignal(), "duration", started.EndTime().Sub(started.StartTime).Round(time.Millisecond).String())
	close(s.entrypointExited)
}

// EntrypointExited returns a channel that is closed when the entrypoint has exited.
func (s *Server) EntrypointExited() <-chan struct{} { return s.entrypointExited }

// EntrypointExitCode returns how the entrypoint exited, in the form of a shell: its exit code, or 128 plus the number
// of the signal that ended it. Call it after EntrypointExited is closed.
func (s *Server) EntrypointExitCode() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if status, signaled := s.entrypoint.exit.GetStatus().(*agentv1.ProcessExit_Signal); signaled {
		return exitCodeSignal + int(status.Signal)
	}
	return int(s.entrypoint.exit.GetExitCode())
}
