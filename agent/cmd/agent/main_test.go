package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/activation"
)

const (
	token = "the token"
	// A test binary with this variable in its environment runs the agent.
	beAgentVariable = "AGENT_TEST_BE_AGENT"
)

func TestMain(m *testing.M) {
	if os.Getenv(beAgentVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

type agent struct {
	process *exec.Cmd
	address string
	client  agentv1.AgentServiceClient
	files   sandpoolv1.FileServiceClient
	log     *bufio.Reader
}

// startAgent starts the agent as the first process of a pid namespace, with its own /proc.
func startAgent(t *testing.T, flags ...string) *agent {
	t.Helper()
	digest := sha256.Sum256([]byte(token))
	script := `mount --make-rprivate / && mount -t proc proc /proc && exec "$0" -listen 127.0.0.1:0 -grace 5s "$@"`
	command := exec.Command("/bin/sh", append([]string{"-c", script, os.Args[0]}, flags...)...)
	command.Env = []string{
		"PATH=" + os.Getenv("PATH"), "IMAGE=yes", beAgentVariable + "=1",
		tokenVariable + "=" + hex.EncodeToString(digest[:]),
	}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	logs, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Both calls fail if the test has ended the agent already.
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	a := &agent{process: command, log: bufio.NewReader(logs)}
	line, err := a.log.ReadBytes('\n')
	var entry struct{ Msg, Address string }
	if err != nil || json.Unmarshal(line, &entry) != nil || entry.Msg != "listening" {
		t.Fatalf("the agent logged %q, error %v", line, err)
	}
	connection, err := grpc.NewClient(entry.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	a.address = entry.Address
	a.client = agentv1.NewAgentServiceClient(connection)
	a.files = sandpoolv1.NewFileServiceClient(connection)
	return a
}

func allowed(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func TestAgentServesAsFirstProcess(t *testing.T) {
	a := startAgent(t)
	ctx := allowed(t)
	info, err := a.client.GetInfo(ctx, &agentv1.GetInfoRequest{})
	if err != nil || info.GetPid() != 1 || info.GetVersion() != version {
		t.Fatalf("%v, %v", info, err)
	}
	if _, err := a.client.GetInfo(t.Context(), &agentv1.GetInfoRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without token: %v", err)
	}
	response, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{Argv: []string{"env"}})
	if err != nil {
		t.Fatal(err)
	}
	environment := string(response.GetStdout())
	if !strings.Contains(environment, "IMAGE=yes\n") || strings.Contains(environment, "SANDPOOL_AGENT") {
		t.Errorf("environment of a command: %s", environment)
	}
	_, err = a.client.RunCommand(ctx, &agentv1.RunCommandRequest{Shell: ":", Stdin: make([]byte, maxRequestBytes+1)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large request: %v", err)
	}
	response, err = a.client.RunCommand(ctx, &agentv1.RunCommandRequest{
		Shell: "head -c 9000000 /dev/zero >&2; head -c 9000000 /dev/zero", MaxOutputBytes: 8 << 20,
	}, grpc.MaxCallRecvMsgSize(maxResponseBytes))
	if err != nil || len(response.GetStdout()) != 8<<20 || len(response.GetStderr()) != 8<<20 {
		t.Errorf("the largest response: %d and %d bytes, %v", len(response.GetStdout()), len(response.GetStderr()), err)
	}
}

func TestActivationWorksWithoutGRPC(t *testing.T) {
	a := startAgent(t)
	connection, err := net.Dial("tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	request, err := proto.Marshal(&agentv1.ConfigureRequest{Environment: map[string]string{"OWNER": "caller"}})
	if err != nil {
		t.Fatal(err)
	}
	var message bytes.Buffer
	message.WriteString(activation.Preamble)
	for _, part := range [][]byte{[]byte(token), request} {
		message.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		message.Write(part)
	}
	if _, err := connection.Write(message.Bytes()); err != nil {
		t.Fatal(err)
	}
	if response, err := io.ReadAll(connection); err != nil || len(response) < 4 {
		t.Fatalf("response %q, error %v", response, err)
	}
	response, err := a.client.RunCommand(allowed(t), &agentv1.RunCommandRequest{Shell: "echo $OWNER"})
	if err != nil || string(response.GetStdout()) != "caller\n" {
		t.Errorf("%v, %v", response, err)
	}
}

func TestDeadlineOfTheCallerKillsTheCommand(t *testing.T) {
	a := startAgent(t)
	ctx, cancel := context.WithTimeout(allowed(t), 200*time.Millisecond)
	defer cancel()
	_, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{Shell: "setsid --fork sleep 1000; sleep 1000"})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v, want DEADLINE_EXCEEDED", err)
	}
	// The client detects the deadline by its own clock, so the agent may still be killing the tree. The agent must
	// finish within the timeout of this command.
	const left = `for p in $(pgrep -x sleep); do tail --pid=$p -s 0.01 -f /dev/null; done; echo none`
	response, err := a.client.RunCommand(allowed(t), &agentv1.RunCommandRequest{Shell: left, Timeout: durationpb.New(20 * time.Second)})
	if err != nil || string(response.GetStdout()) != "none\n" {
		t.Errorf("%v, %v", response, err)
	}
}

func TestSIGTERMEndsAgentAndProcesses(t *testing.T) {
	a := startAgent(t)
	ctx := allowed(t)
	responses := make(chan *agentv1.RunCommandResponse, 1)
	fifo := t.TempDir() + "/pipe"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		response, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{Shell: "echo up >" + fifo + "; exec sleep 1000"})
		if err != nil {
			t.Error(err)
		}
		responses <- response
	}()
	if data, err := os.ReadFile(fifo); err != nil || string(data) != "up\n" {
		t.Fatalf("%q, %v", data, err)
	}
	if err := a.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := (<-responses).GetExit(); exit.GetReason() != agentv1.ExitReason_EXIT_REASON_SHUT_DOWN || exit.GetSignal() != 15 {
		t.Error(exit)
	}
	rest, err := io.ReadAll(a.log)
	if err != nil {
		t.Error(err)
	}
	if err := a.process.Wait(); err != nil {
		t.Errorf("%v\n%s", err, rest)
	}
}

func configure(t *testing.T, a *agent, shell string) *agentv1.EntrypointStatus {
	t.Helper()
	response, err := a.client.Configure(allowed(t), &agentv1.ConfigureRequest{
		Entrypoint: &agentv1.Entrypoint{Argv: []string{"sh", "-c", shell}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetEntrypoint()
}

func TestAgentExitsWithTheExitCodeOfItsEntrypoint(t *testing.T) {
	for script, code := range map[string]int{
		"exit 0": 0, "exit 7": 7, "kill -TERM $$": 128 + 15, "kill -KILL $$": 137,
		// Descendants of the entrypoint end too, including those that left its session.
		"setsid --fork sleep 1000; sleep 1000 & exit 8": 8,
	} {
		a := startAgent(t)
		if state := configure(t, a, script).GetState(); state == agentv1.EntrypointState_ENTRYPOINT_STATE_FAILED {
			t.Error(state)
		}
		rest, err := io.ReadAll(a.log)
		if err != nil {
			t.Error(err)
		}
		_ = a.process.Wait() // The error contains only the exit code.
		if got := a.process.ProcessState.ExitCode(); got != code {
			t.Errorf("%s: the agent exited with %d, want %d\n%s", script, got, code, rest)
		}
	}
}

func TestRunningCommandsEndWithTheEntrypoint(t *testing.T) {
	a := startAgent(t)
	fifo, stubborn := t.TempDir()+"/pipe", t.TempDir()+"/stubborn"
	for _, path := range []string{fifo, stubborn} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(t, a, "read go <"+fifo+"; exit 9")
	ctx := allowed(t)
	ends := make(chan *agentv1.ProcessExit, 1)
	go func() {
		// The command reports SIGTERM and exits only when the test permits it.
		response, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{
			Shell: "trap 'echo term >" + stubborn + "; read go <" + stubborn + "; exit 5' TERM; echo go >" + fifo + "; while :; do sleep 0.01; done",
		})
		if err != nil {
			t.Error(err)
		}
		ends <- response.GetExit()
	}()
	if data, err := os.ReadFile(stubborn); err != nil || string(data) != "term\n" {
		t.Fatalf("%q, %v", data, err)
	}
	info, err := a.client.GetInfo(ctx, &agentv1.GetInfoRequest{})
	if err != nil || info.GetEntrypoint().GetState() != agentv1.EntrypointState_ENTRYPOINT_STATE_EXITED ||
		info.GetEntrypoint().GetExit().GetExitCode() != 9 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{Shell: ":"}); status.Code(err) != codes.Unavailable {
		t.Errorf("new command: %v, want UNAVAILABLE", err)
	}
	if _, err := a.client.Configure(ctx, &agentv1.ConfigureRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("new configuration: %v, want UNAVAILABLE", err)
	}
	if err := os.WriteFile(stubborn, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if exit := <-ends; exit.GetReason() != agentv1.ExitReason_EXIT_REASON_SHUT_DOWN || exit.GetExitCode() != 5 {
		t.Error(exit)
	}
	if _, err := io.ReadAll(a.log); err != nil {
		t.Error(err)
	}
	_ = a.process.Wait() // The error contains only the exit code.
	if code := a.process.ProcessState.ExitCode(); code != 9 {
		t.Errorf("the agent exited with %d", code)
	}
}

func TestMaxFileBytesLimitsFilesOfProcesses(t *testing.T) {
	a := startAgent(t, "-exit-with-entrypoint=false")
	ctx := allowed(t)
	file := t.TempDir() + "/file"
	for _, dir := range []string{filepath.Dir(file), filepath.Dir(filepath.Dir(file))} {
		if err := os.Chmod(dir, 0o777); err != nil { // They are created for their owner only.
			t.Fatal(err)
		}
	}
	write := func(size int, user string) (signal int32, written int64) {
		t.Helper()
		response, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{
			Shell: fmt.Sprintf("rm -f %s && exec head -c %d /dev/zero >%s", file, size, file), User: user,
		})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return response.GetExit().GetSignal(), info.Size()
	}
	if signal, written := write(20000, "0"); signal != 0 || written != 20000 {
		t.Errorf("without a limit: signal %d, %d bytes", signal, written)
	}
	if _, err := a.client.Configure(ctx, &agentv1.ConfigureRequest{MaxFileBytes: 8192}); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"0", "65534:65534"} {
		if signal, written := write(20000, user); signal != int32(syscall.SIGXFSZ) || written != 8192 {
			t.Errorf("user %s: signal %d, %d bytes", user, signal, written)
		}
		if signal, written := write(8192, user); signal != 0 || written != 8192 {
			t.Errorf("user %s, up to the limit: signal %d, %d bytes", user, signal, written)
		}
	}
	// A request without a limit does not change it. ulimit uses blocks of 512 bytes. Pipes are not limited.
	if _, err := a.client.Configure(ctx, &agentv1.ConfigureRequest{Environment: map[string]string{"A": "b"}}); err != nil {
		t.Fatal(err)
	}
	response, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{
		Argv: []string{"/bin/sh", "-c", "ulimit -S -f; ulimit -H -f; head -c 20000 /dev/zero | wc -c"},
	})
	if err != nil || string(response.GetStdout()) != "16\n16\n20000\n" {
		t.Errorf("%v, %v", response, err)
	}
	entrypoint := configure(t, a, "rm -f "+file+"; exec head -c 20000 /dev/zero >"+file)
	wait := fmt.Sprintf("tail --pid=%d -s 0.01 -f /dev/null; stat -c %%s %s", entrypoint.GetPid(), file)
	response, err = a.client.RunCommand(ctx, &agentv1.RunCommandRequest{Shell: wait, Timeout: durationpb.New(20 * time.Second)})
	if err != nil || string(response.GetStdout()) != "8192\n" {
		t.Errorf("file of the entrypoint: %v, %v", response, err)
	}
}

func TestMaxFileBytesLimitsFilesOfTheAgent(t *testing.T) {
	a := startAgent(t, "-exit-with-entrypoint=false")
	ctx := allowed(t)
	if _, err := a.client.Configure(ctx, &agentv1.ConfigureRequest{MaxFileBytes: 8192}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name string, mode sandpoolv1.WriteMode, size int) error {
		_, err := a.files.PutFile(ctx, &sandpoolv1.PutFileRequest{
			Target: &sandpoolv1.WriteFileTarget{Path: dir + "/" + name, WriteMode: mode}, Data: make([]byte, size),
		})
		return err
	}
	copied := func() error {
		_, err := a.files.CopyFile(ctx, &sandpoolv1.CopyFileRequest{Source: dir + "/large", Destination: dir + "/copy"})
		return err
	}
	replace, appending := sandpoolv1.WriteMode_WRITE_MODE_REPLACE, sandpoolv1.WriteMode_WRITE_MODE_APPEND
	if err := os.WriteFile(dir+"/large", make([]byte, 20000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := put("file", replace, 8192); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"a larger file": put("other", replace, 8193), "an append": put("file", appending, 1), "a copy": copied(),
	} {
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("files that are left: %v, %v", entries, err)
	}
	// The agent still runs, and processes that it starts do not ignore the signal.
	response, err := a.client.RunCommand(ctx, &agentv1.RunCommandRequest{Shell: "exec head -c 20000 /dev/zero >" + dir + "/command"})
	if err != nil || response.GetExit().GetSignal() != int32(syscall.SIGXFSZ) {
		t.Errorf("%v, %v", response, err)
	}
}

func TestAgentOutlivesItsEntrypointWithoutTheFlag(t *testing.T) {
	a := startAgent(t, "-exit-with-entrypoint=false")
	pid := configure(t, a, "exit 3").GetPid()
	wait := fmt.Sprintf("tail --pid=%d -s 0.01 -f /dev/null; echo alive", pid)
	response, err := a.client.RunCommand(allowed(t), &agentv1.RunCommandRequest{Shell: wait, Timeout: durationpb.New(20 * time.Second)})
	if err != nil || string(response.GetStdout()) != "alive\n" {
		t.Errorf("%v, %v", response, err)
	}
}

func TestTakeEnvironmentRemovesVariablesOfTheAgent(t *testing.T) {
	t.Setenv(tokenVariable, "x")
	t.Setenv("IMAGE_VARIABLE", "y")
	others := takeEnvironment()
	if slices.Contains(others, tokenVariable+"=x") || !slices.Contains(others, "IMAGE_VARIABLE=y") {
		t.Errorf("got %q", others)
	}
	if value, set := os.LookupEnv(tokenVariable); set {
		t.Errorf("the variable still exists: %q", value)
	}
}

func TestRunPrintsVersionAndUsage(t *testing.T) {
	t.Setenv(tokenVariable, "")
	for _, test := range []struct {
		arguments []string
		code      int
		stdout    string
		stderr    string
	}{
		{[]string{"-version"}, 0, version + "\n", ""},
		{[]string{"-help"}, 0, "", "-listen"},
		{[]string{"-nonsense"}, exitUsage, "", "-nonsense"},
		{nil, exitUsage, "", tokenVariable},
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"agent"}, test.arguments...), &stdout, &stderr)
		if code != test.code || stdout.String() != test.stdout || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%v: code %d, stdout %q, stderr %q", test.arguments, code, stdout.String(), stderr.String())
		}
	}
}

func TestInvalidAddressIsAnError(t *testing.T) {
	digest := sha256.Sum256([]byte(token))
	command := exec.Command(os.Args[0], "-listen", "127.0.0.1:99999")
	command.Env = []string{beAgentVariable + "=1", tokenVariable + "=" + fmt.Sprintf("%x", digest)}
	output, err := command.CombinedOutput()
	if command.ProcessState.ExitCode() != exitCannotServe || !strings.Contains(string(output), "serving failed") {
		t.Errorf("%v: %s", err, output)
	}
}
