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

// entrypointSource is whose lines the entrypoint's are in the logs.
const entrypointSource = "entrypoint"

// entrypoint is what runs beside the commands. Server.mu guards it.
type entrypoint struct {
	// argv and process are set once it has been started.
	argv    []string
	process *process.Process
	// failure is why the last try to start it failed.
	failure string
	// end is set once it has ended.
	end *agentv1.ProcessEnd
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
	if e.end != nil {
		result.State = agentv1.EntrypointState_ENTRYPOINT_STATE_ENDED
		result.EndTime = timestamppb.New(e.process.EndTime())
		result.End = e.end
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

// applyConfiguration checks the whole request, then applies all of it but the start of the entrypoint.
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
		// A new map each time, for plans read the old one without the lock.
		merged = make(map[string]string, len(s.environment)+len(request.GetEnvironment()))
		maps.Copy(merged, s.environment)
		maps.Copy(merged, request.GetEnvironment())
		if err := checkEnvironment("environment", merged); err != nil {
			return err
		}
	}
	if wanted := request.GetEntrypoint(); wanted != nil && s.entrypoint.conflicts(wanted.GetArgv()) {
		return rpcerror.New(codes.FailedPrecondition, reasonEntrypointConflict, "another entrypoint has been started in this sandbox")
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

// limitFiles bounds the files of processes started from now on; 0 leaves it as it is. Called with mu held.
func (s *Server) limitFiles(bytes int64) error {
	if bytes == 0 || bytes == s.fileLimit {
		return nil
	}
	if err := s.launcher.LimitFileSize(uint64(bytes)); err != nil {
		return rpcerror.New(codes.FailedPrecondition, reasonFileSizeFixed,
			"files cannot be limited to %d bytes, the limit is %d: %v", bytes, s.fileLimit, err)
	}
	s.fileLimit = bytes
	return nil
}

// conflicts is whether another entrypoint has been started.
func (e *entrypoint) conflicts(argv []string) bool {
	return e.process != nil && !slices.Equal(e.argv, argv)
}

// startEntrypoint starts the entrypoint unless that has been done. Called with configureMu held.
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
	p, err := s.makePlan(wish{argv: argv})
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
	// What it printed last is on its way: the agent ends with it.
	deadline := time.Now().Add(outputGrace)
	for _, tee := range s.tees {
		tee.Finish(deadline)
	}
	end := s.endOf(started, killsBefore, s.reasonWhenStopping())
	s.mu.Lock()
	s.entrypoint.end = end
	s.mu.Unlock()
	slog.Info("entrypoint ended", "reason", end.GetReason().String(), "exit_code", end.GetExitCode(),
		"signal", end.GetSignal(), "ran", started.EndTime().Sub(started.StartTime).Round(time.Millisecond).String())
	close(s.entrypointEnded)
}

// EntrypointEnded is closed when the entrypoint has ended.
func (s *Server) EntrypointEnded() <-chan struct{} { return s.entrypointEnded }

// EntrypointExitCode is how the entrypoint ended, as a shell would say it: its exit code, or 128 plus the number of the
// signal that ended it. To be called after EntrypointEnded is closed.
func (s *Server) EntrypointExitCode() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if status, signaled := s.entrypoint.end.GetStatus().(*agentv1.ProcessEnd_Signal); signaled {
		return exitCodeSignal + int(status.Signal)
	}
	return int(s.entrypoint.end.GetExitCode())
}
