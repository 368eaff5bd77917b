package service

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
)

func configure(t *testing.T, s *Server, request *agentv1.ConfigureRequest) *agentv1.EntrypointStatus {
	t.Helper()
	response, err := s.Configure(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return response.GetEntrypoint()
}

func entrypointOf(t *testing.T, s *Server) *agentv1.EntrypointStatus {
	t.Helper()
	info, err := s.GetInfo(t.Context(), &agentv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return info.GetEntrypoint()
}

// follow waits until the server has recorded the exit of its entrypoint.
func follow(t *testing.T, s *Server) {
	t.Helper()
	select {
	case <-s.EntrypointExited():
	case <-time.After(20 * time.Second):
		t.Fatal("the exit of the entrypoint was not recorded")
	}
}

func TestEntrypointStartsOnce(t *testing.T) {
	s := newServer(t)
	reports := newPipe(t)
	request := &agentv1.ConfigureRequest{
		Environment: map[string]string{"REPORT": reports.path},
		Entrypoint:  &agentv1.Entrypoint{Argv: []string{"sh", "-c", `echo $$ >"$REPORT"; exec sleep 1000`}},
	}
	first := configure(t, s, request)
	if first.GetState() != agentv1.EntrypointState_ENTRYPOINT_STATE_RUNNING || first.GetStartTime() == nil {
		t.Error(first)
	}
	if pid := reports.next(t); pid != int(first.GetPid()) {
		t.Errorf("process %d wrote its id, the status contains %d", pid, first.GetPid())
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if repeated := configure(t, s, request); repeated.GetPid() != first.GetPid() {
				t.Errorf("started again: %v", repeated)
			}
		})
	}
	all.Wait()
	_, err := s.Configure(t.Context(), &agentv1.ConfigureRequest{
		Entrypoint: &agentv1.Entrypoint{Argv: []string{"true"}}, Defaults: &agentv1.Defaults{},
	})
	wantError(t, err, codes.FailedPrecondition, reasonEntrypointConflict, "")
	if err := unix.Kill(int(first.GetPid()), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	follow(t, s)
	exit := configure(t, s, request)
	if exit.GetState() != agentv1.EntrypointState_ENTRYPOINT_STATE_EXITED || exit.GetExit().GetSignal() != 15 ||
		exit.GetExit().GetReason() != agentv1.ExitReason_EXIT_REASON_SIGNALED || exit.GetEndTime() == nil || exit.GetPid() != first.GetPid() {
		t.Error(exit)
	}
	if code := s.EntrypointExitCode(); code != 128+15 {
		t.Errorf("exit code %d", code)
	}
}

func TestFailedEntrypointCanBeRetried(t *testing.T) {
	s := newServer(t)
	_, err := s.Configure(t.Context(), &agentv1.ConfigureRequest{
		Defaults:   &agentv1.Defaults{WorkingDirectory: "/etc"},
		Entrypoint: &agentv1.Entrypoint{Argv: []string{"no-such-program"}},
	})
	wantError(t, err, codes.NotFound, reasonExecNotFound, "")
	got := entrypointOf(t, s)
	if got.GetState() != agentv1.EntrypointState_ENTRYPOINT_STATE_FAILED || got.GetError() == "" || got.GetPid() != 0 {
		t.Error(got)
	}
	if response := run(t, s, &agentv1.RunCommandRequest{Shell: "pwd"}); string(response.GetStdout()) != "/etc\n" {
		t.Errorf("the rest of the request was not applied: %q", response.GetStdout())
	}
	configure(t, s, &agentv1.ConfigureRequest{Entrypoint: &agentv1.Entrypoint{Argv: []string{"sh", "-c", "exit 3"}}})
	follow(t, s)
	if exit := entrypointOf(t, s).GetExit(); exit.GetExitCode() != 3 || exit.GetReason() != agentv1.ExitReason_EXIT_REASON_EXITED {
		t.Error(exit)
	}
	if code := s.EntrypointExitCode(); code != 3 {
		t.Errorf("exit code %d", code)
	}
}

func TestEntrypointCanFollowLaterWithMoreEnvironment(t *testing.T) {
	s := newServer(t)
	reports := newPipe(t)
	configure(t, s, &agentv1.ConfigureRequest{
		Defaults:    &agentv1.Defaults{Environment: map[string]string{"PATH": "/usr/bin:/bin", "A": "image"}},
		Environment: map[string]string{"A": "pool", "B": "1"},
	})
	status := configure(t, s, &agentv1.ConfigureRequest{
		Environment: map[string]string{"B": "2", "REPORT": reports.path},
		Entrypoint:  &agentv1.Entrypoint{Argv: []string{"sh", "-c", `[ "$A$B" = pool2 ] && echo $$ >"$REPORT"; exec sleep 1000`}},
	})
	if pid := reports.next(t); pid != int(status.GetPid()) {
		t.Errorf("process %d wrote its id, the status contains %d", pid, status.GetPid())
	}
	if err := unix.Kill(int(status.GetPid()), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	follow(t, s)
	if code := s.EntrypointExitCode(); code != 137 {
		t.Errorf("exit code %d", code)
	}
}

// The effect of the limit is tested with the complete program, because the limit of this process could not be restored.
func TestConfigureRejectsNegativeFileLimit(t *testing.T) {
	_, err := newServer(t).Configure(t.Context(), &agentv1.ConfigureRequest{MaxFileBytes: -1})
	wantError(t, err, codes.InvalidArgument, reasonInvalidField, "max_file_bytes")
}

func TestStopEndsAllProcesses(t *testing.T) {
	s := newServer(t)
	reports := newPipe(t)
	configure(t, s, &agentv1.ConfigureRequest{
		Environment: map[string]string{"REPORT": reports.path},
		Entrypoint:  &agentv1.Entrypoint{Argv: []string{"sh", "-c", `trap 'exit 4' TERM; echo $$ >"$REPORT"; while :; do sleep 0.05; done`}},
	})
	reports.next(t)
	responses := make(chan *agentv1.RunCommandResponse, 1)
	go func() {
		response, err := s.RunCommand(t.Context(), &agentv1.RunCommandRequest{
			Shell: `trap "" TERM; setsid --fork sh -c 'trap "" TERM; echo $$ >"$REPORT"; while :; do sleep 0.05; done'; while :; do sleep 0.05; done`,
		})
		if err != nil {
			t.Error(err)
		}
		responses <- response
	}()
	stubborn := reports.next(t)
	s.Stop(time.Second)
	if alive(stubborn) {
		t.Error("a process that ignores SIGTERM survived")
	}
	response := <-responses
	if exit := response.GetExit(); exit.GetReason() != agentv1.ExitReason_EXIT_REASON_SHUT_DOWN || exit.GetSignal() != 9 {
		t.Error(exit)
	}
	follow(t, s)
	if exit := entrypointOf(t, s).GetExit(); exit.GetReason() != agentv1.ExitReason_EXIT_REASON_SHUT_DOWN || exit.GetExitCode() != 4 {
		t.Errorf("the entrypoint could not exit after SIGTERM: %v", exit)
	}
	_, err := s.RunCommand(t.Context(), &agentv1.RunCommandRequest{Shell: "true"})
	wantError(t, err, codes.Unavailable, reasonShuttingDown, "")
	_, err = s.Configure(t.Context(), &agentv1.ConfigureRequest{})
	wantError(t, err, codes.Unavailable, reasonShuttingDown, "")
}
