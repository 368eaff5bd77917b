package service

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	"sandpool/agent/internal/host"
	"sandpool/agent/internal/logs"
	"sandpool/agent/internal/nstest"
	"sandpool/agent/internal/procfs"
	"sandpool/agent/internal/reaper"
	"sandpool/agent/internal/users"
)

var children *reaper.Reaper

func TestMain(m *testing.M) {
	nstest.Main(m, func() {
		host.Prepare()
		children = reaper.New()
	})
}

// newServer returns a server for an image with two users.
func newServer(t *testing.T) *Server {
	t.Helper()
	dir := t.TempDir()
	d := users.Database{PasswdPath: filepath.Join(dir, "passwd"), GroupPath: filepath.Join(dir, "group")}
	writeFile(t, d.PasswdPath, "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n", 0o644)
	writeFile(t, d.GroupPath, "app:x:1001:\nextra:x:44:app\n", 0o644)
	return New(Options{
		Version:     "1.2.3",
		Environment: []string{"HOME=/agent", "IMAGE=yes", "PATH=/usr/bin:/bin", "SANDPOOL_AGENT_TOKEN_SHA256=abc", "=odd"},
		Reaper:      children,
		Users:       d,
		Log:         logs.New(time.Now).Log,
	})
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, s *Server, request *agentv1.RunCommandRequest) *agentv1.RunCommandResponse {
	t.Helper()
	response, err := s.RunCommand(t.Context(), request)
	if err != nil {
		t.Fatalf("%v: %v", request, err)
	}
	return response
}

// pipe is a named pipe to which processes write lines.
type pipe struct {
	path  string
	lines *bufio.Scanner
}

func newPipe(t *testing.T) *pipe {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &pipe{path: path, lines: bufio.NewScanner(file)}
}

func (p *pipe) next(t *testing.T) (pid int) {
	t.Helper()
	if !p.lines.Scan() {
		t.Fatal("no process wrote a line:", p.lines.Err())
	}
	if _, err := fmt.Sscan(p.lines.Text(), &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func alive(pid int) bool {
	stat, err := procfs.ReadStat(pid)
	return err == nil && !stat.Dead
}

func wantError(t *testing.T, err error, code codes.Code, reason, field string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%v, want %v %s", err, code, reason)
		return
	}
	var gotReason, gotField string
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			gotReason = detail.GetReason()
			if detail.GetDomain() != "sandpool" {
				t.Errorf("domain %q", detail.GetDomain())
			}
		case *errdetails.BadRequest:
			gotField = detail.GetFieldViolations()[0].GetField()
		}
	}
	if gotReason != reason || gotField != field {
		t.Errorf("%v: reason %q and field %q, want %q and %q", err, gotReason, gotField, reason, field)
	}
}

func TestGetInfoDescribesTheAgent(t *testing.T) {
	s := newServer(t)
	info, err := s.GetInfo(t.Context(), &agentv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetVersion() != "1.2.3" || info.GetProtocolVersion() != ProtocolVersion || len(info.GetBootId()) != 32 || info.GetPid() != 1 ||
		!strings.HasPrefix(info.GetPidNamespace(), "pid:[") || info.GetConfigured() || info.GetStartTime() == nil ||
		info.GetEntrypoint().GetState() != agentv1.EntrypointState_ENTRYPOINT_STATE_NONE {
		t.Error(info)
	}
	other, err := newServer(t).GetInfo(t.Context(), &agentv1.GetInfoRequest{})
	if err != nil || other.GetBootId() == info.GetBootId() {
		t.Errorf("two runs have the same boot id %s, error %v", other.GetBootId(), err)
	}
}

func TestRunCommandReportsExitCodeAndSignal(t *testing.T) {
	s := newServer(t)
	for script, want := range map[string]*agentv1.ProcessExit{
		"exit 0":        {Status: &agentv1.ProcessExit_ExitCode{ExitCode: 0}, Reason: agentv1.ExitReason_EXIT_REASON_EXITED},
		"exit 255":      {Status: &agentv1.ProcessExit_ExitCode{ExitCode: 255}, Reason: agentv1.ExitReason_EXIT_REASON_EXITED},
		"exit 137":      {Status: &agentv1.ProcessExit_ExitCode{ExitCode: 137}, Reason: agentv1.ExitReason_EXIT_REASON_EXITED},
		"kill -TERM $$": {Status: &agentv1.ProcessExit_Signal{Signal: 15}, Reason: agentv1.ExitReason_EXIT_REASON_SIGNALED},
		"kill -KILL $$": {Status: &agentv1.ProcessExit_Signal{Signal: 9}, Reason: agentv1.ExitReason_EXIT_REASON_SIGNALED},
	} {
		response := run(t, s, &agentv1.RunCommandRequest{Shell: script})
		if got := response.GetExit(); got.String() != want.String() {
			t.Errorf("%s: %v, want %v", script, got, want)
		}
		if response.GetDuration().AsDuration() <= 0 {
			t.Errorf("%s: took %v", script, response.GetDuration())
		}
	}
}

func TestRunCommandReportsOutOfMemoryKill(t *testing.T) {
	s := newServer(t)
	for script, want := range map[string]agentv1.ExitReason{
		"kill -KILL $$": agentv1.ExitReason_EXIT_REASON_OOM_KILLED,
		"exit 137":      agentv1.ExitReason_EXIT_REASON_OOM_KILLED,
		// A child was killed, but this did not end the command.
		"exit 1":        agentv1.ExitReason_EXIT_REASON_EXITED,
		"kill -TERM $$": agentv1.ExitReason_EXIT_REASON_SIGNALED,
	} {
		// The count increases by two while the command runs.
		var count int64 = 5
		s.countKills = func() (int64, bool) { count += 2; return count, true }
		if exit := run(t, s, &agentv1.RunCommandRequest{Shell: script}).GetExit(); exit.GetReason() != want || exit.GetOomKills() != 2 {
			t.Errorf("%s: %v, want %v", script, exit, want)
		}
	}
}

func TestRunCommandPassesOutputAndInput(t *testing.T) {
	s := newServer(t)
	response := run(t, s, &agentv1.RunCommandRequest{Shell: "echo out; echo err >&2; cat", Stdin: []byte("in")})
	if string(response.GetStdout()) != "out\nin" || string(response.GetStderr()) != "err\n" {
		t.Errorf("stdout %q, stderr %q", response.GetStdout(), response.GetStderr())
	}
	// The maximum input, which is far more than a pipe holds, in both directions at once.
	big := slices.Repeat([]byte("x"), maxStdinBytes)
	response = run(t, s, &agentv1.RunCommandRequest{Argv: []string{"cat"}, Stdin: big, MaxOutputBytes: maxStdinBytes})
	if !slices.Equal(response.GetStdout(), big) || response.GetStdoutTruncatedBytes() != 0 {
		t.Errorf("got %d of %d bytes", len(response.GetStdout()), len(big))
	}
	// A command that does not read its input must exit anyway.
	response = run(t, s, &agentv1.RunCommandRequest{Argv: []string{"true"}, Stdin: big})
	if response.GetExit().GetReason() != agentv1.ExitReason_EXIT_REASON_EXITED {
		t.Error(response.GetExit())
	}
	response = run(t, s, &agentv1.RunCommandRequest{Argv: []string{"readlink", "/proc/self/fd/0"}})
	if string(response.GetStdout()) != "/dev/null\n" {
		t.Errorf("standard input is %q without input, want /dev/null", response.GetStdout())
	}
}

func TestRunCommandCountsOutputBeyondTheLimit(t *testing.T) {
	s := newServer(t)
	script := "head -c 3000000 /dev/zero; head -c 10 /dev/zero >&2"
	response := run(t, s, &agentv1.RunCommandRequest{Shell: script})
	if len(response.GetStdout()) != defaultOutputBytes || response.GetStdoutTruncatedBytes() != 3000000-defaultOutputBytes ||
		len(response.GetStderr()) != 10 || response.GetStderrTruncatedBytes() != 0 {
		t.Errorf("default: %d + %d, %d + %d", len(response.GetStdout()), response.GetStdoutTruncatedBytes(),
			len(response.GetStderr()), response.GetStderrTruncatedBytes())
	}
	configure(t, s, &agentv1.ConfigureRequest{Defaults: &agentv1.Defaults{MaxOutputBytes: 7}})
	if response = run(t, s, &agentv1.RunCommandRequest{Shell: script}); len(response.GetStdout()) != 7 || response.GetStderrTruncatedBytes() != 3 {
		t.Errorf("configured: %d bytes, %d", len(response.GetStdout()), response.GetStderrTruncatedBytes())
	}
	if response = run(t, s, &agentv1.RunCommandRequest{Shell: script, MaxOutputBytes: 9}); len(response.GetStdout()) != 9 {
		t.Errorf("with a limit in the request: %d bytes", len(response.GetStdout()))
	}
}

func TestEnvironmentIsMergedInOrderOfPrecedence(t *testing.T) {
	s := newServer(t)
	t.Setenv("SANDPOOL_SECRET_OF_THE_AGENT", "x")
	environment := func(request *agentv1.RunCommandRequest) []string {
		request.Argv = []string{"env"}
		lines := strings.Split(strings.TrimSpace(string(run(t, s, request).GetStdout())), "\n")
		return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "SANDPOOL_PROCESS_MARKER=") })
	}
	want := []string{"HOME=/root", "IMAGE=yes", "LOGNAME=root", "PATH=/usr/bin:/bin", "USER=root"}
	if got := environment(&agentv1.RunCommandRequest{}); !slices.Equal(got, want) {
		t.Errorf("unconfigured: %q, want %q", got, want)
	}
	configure(t, s, &agentv1.ConfigureRequest{
		Defaults:    &agentv1.Defaults{Environment: map[string]string{"BASE": "1", "A": "base", "SANDPOOL_X": "y"}, User: "app"},
		Environment: map[string]string{"A": "first", "SECRET": "s1"},
	})
	configure(t, s, &agentv1.ConfigureRequest{Environment: map[string]string{"A": "second"}})
	want = []string{"A=second", "BASE=1", "HOME=/home/app", "LOGNAME=app", "PATH=" + defaultPath, "SECRET=s1", "USER=app"}
	if got := environment(&agentv1.RunCommandRequest{}); !slices.Equal(got, want) {
		t.Errorf("configured: %q, want %q", got, want)
	}
	want = []string{"A=own", "BASE=1", "HOME=/x", "LOGNAME=root", "PATH=" + defaultPath, "SECRET=s1", "USER=root"}
	got := environment(&agentv1.RunCommandRequest{Environment: map[string]string{"A": "own", "HOME": "/x"}, User: "0"})
	if !slices.Equal(got, want) {
		t.Errorf("with an environment in the request: %q, want %q", got, want)
	}
}

func TestRunCommandUsesUserAndDirectory(t *testing.T) {
	s := newServer(t)
	for user, want := range map[string]string{
		"":       "0:0:0",
		"app":    "1000:1001:1001 44",
		"1000:9": "1000:9:9",
		"77":     "77:0:0",
		"77:88":  "77:88:88",
	} {
		response := run(t, s, &agentv1.RunCommandRequest{Shell: `echo "$(id -u):$(id -g):$(id -G)"`, User: user})
		if got := strings.TrimSpace(string(response.GetStdout())); got != want {
			t.Errorf("%q: %s, want %s; %s", user, got, want, response.GetStderr())
		}
	}
	if response := run(t, s, &agentv1.RunCommandRequest{Shell: "pwd"}); string(response.GetStdout()) != "/\n" {
		t.Errorf("default directory %q", response.GetStdout())
	}
	configure(t, s, &agentv1.ConfigureRequest{Defaults: &agentv1.Defaults{WorkingDirectory: "/etc"}})
	if response := run(t, s, &agentv1.RunCommandRequest{Shell: "pwd"}); string(response.GetStdout()) != "/etc\n" {
		t.Errorf("configured directory %q", response.GetStdout())
	}
	if response := run(t, s, &agentv1.RunCommandRequest{Shell: "pwd", WorkingDirectory: "/usr"}); string(response.GetStdout()) != "/usr\n" {
		t.Errorf("directory of the request %q", response.GetStdout())
	}
}

func TestTimeoutKillsTheTree(t *testing.T) {
	s := newServer(t)
	reports := newPipe(t)
	fire := make(chan time.Time, 1)
	s.after = func(timeout time.Duration) (<-chan time.Time, func()) {
		if timeout != 3*time.Second {
			t.Errorf("timeout %v", timeout)
		}
		return fire, func() {}
	}
	script := strings.ReplaceAll(`echo started; setsid --fork sh -c 'echo $$ >PIPE; exec sleep 1000'; (sh -c 'echo $$ >PIPE; exec sleep 1000' &); wait; sleep 1000`,
		"PIPE", reports.path)
	responses := make(chan *agentv1.RunCommandResponse, 1)
	go func() {
		response, err := s.RunCommand(t.Context(), &agentv1.RunCommandRequest{Shell: script, Timeout: seconds(3)})
		if err != nil {
			t.Error(err)
		}
		responses <- response
	}()
	pids := []int{reports.next(t), reports.next(t)}
	fire <- time.Time{}
	response := <-responses
	if exit := response.GetExit(); exit.GetReason() != agentv1.ExitReason_EXIT_REASON_TIMED_OUT || exit.GetSignal() != 9 {
		t.Error(exit)
	}
	if string(response.GetStdout()) != "started\n" || response.GetOutputLeftOpen() {
		t.Errorf("output %q, left open %v", response.GetStdout(), response.GetOutputLeftOpen())
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d survived", pid)
		}
	}
	waitNoProcess(t)
}

func TestTimeoutUsesTheRealClock(t *testing.T) {
	s := newServer(t)
	response := run(t, s, &agentv1.RunCommandRequest{Argv: []string{"sleep", "1000"}, Timeout: milliseconds(30)})
	if response.GetExit().GetReason() != agentv1.ExitReason_EXIT_REASON_TIMED_OUT {
		t.Error(response.GetExit())
	}
	if took := response.GetDuration().AsDuration(); took < 30*time.Millisecond || took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestCancelKillsTheTree(t *testing.T) {
	s := newServer(t)
	reports := newPipe(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error, 1)
	go func() {
		_, err := s.RunCommand(ctx, &agentv1.RunCommandRequest{
			Shell: "setsid --fork sh -c 'echo $$ >" + reports.path + "; exec sleep 1000'; sleep 1000",
		})
		errs <- err
	}()
	pid := reports.next(t)
	if info, err := s.GetInfo(t.Context(), &agentv1.GetInfoRequest{}); err != nil || info.GetRunningCommands() != 1 {
		t.Errorf("%v, %v; want one running command", info, err)
	}
	cancel()
	err := <-errs
	if status.Code(err) != codes.Canceled {
		t.Errorf("%v, want CANCELED", err)
	}
	if alive(pid) {
		t.Error("the command survived its call")
	}
	waitNoProcess(t)
}

func TestRunCommandDoesNotWaitForBackgroundChildren(t *testing.T) {
	s := newServer(t)
	reports, gate := newPipe(t), newPipe(t)
	// The child holds both output pipes open, waits until the call has returned, and then writes more than a pipe
	// holds.
	response := run(t, s, &agentv1.RunCommandRequest{Shell: strings.NewReplacer("GATE", gate.path, "PIPE", reports.path).Replace(
		`sh -c 'echo $$ >PIPE; read go <GATE; head -c 1000000 /dev/zero && echo $$ >PIPE; exec sleep 1000' & echo now`)})
	if string(response.GetStdout()) != "now\n" || !response.GetOutputLeftOpen() || response.GetExit().GetExitCode() != 0 {
		t.Errorf("%q, left open %v, %v", response.GetStdout(), response.GetOutputLeftOpen(), response.GetExit())
	}
	pid := reports.next(t)
	writeFile(t, gate.path, "go\n", 0o600)
	if repeated := reports.next(t); repeated != pid || !alive(pid) {
		t.Errorf("process %d did not survive its write", pid)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	waitNoProcess(t)
}

func waitNoProcess(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := children.WaitIdle(ctx); err != nil {
		t.Error("processes are left:", err)
	}
}
