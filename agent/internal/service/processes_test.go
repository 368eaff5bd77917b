package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

// processClient returns a gRPC client of ProcessService.
func processClient(t *testing.T) sandpoolv1.ProcessServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	sandpoolv1.RegisterProcessServiceServer(server, newServer(t).Processes())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	connection, err := grpc.NewClient("passthrough:sandbox", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return sandpoolv1.NewProcessServiceClient(connection)
}

func start(t *testing.T, client sandpoolv1.ProcessServiceClient, request *sandpoolv1.StartProcessRequest) *sandpoolv1.Process {
	t.Helper()
	response, err := client.StartProcess(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return response.GetProcess()
}

// seen is what a client received of a process.
type seen struct {
	stdout, stderr bytes.Buffer
	gaps           []*sandpoolv1.OutputGap
	exit           *sandpoolv1.ProcessExit
}

func (s *seen) take(t *testing.T, event *sandpoolv1.ProcessEvent) {
	t.Helper()
	switch part := event.GetEvent().(type) {
	case *sandpoolv1.ProcessEvent_Output:
		if part.Output.GetStream() == sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT {
			s.stdout.Write(part.Output.GetData())
		} else {
			s.stderr.Write(part.Output.GetData())
		}
	case *sandpoolv1.ProcessEvent_Gap:
		s.gaps = append(s.gaps, part.Gap)
	case *sandpoolv1.ProcessEvent_Exited:
		s.exit = part.Exited
	}
}

// attach collects the events of a process until it has exited.
func attach(t *testing.T, client sandpoolv1.ProcessServiceClient, request *sandpoolv1.AttachProcessRequest) *seen {
	t.Helper()
	stream, err := client.AttachProcess(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	var s seen
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &s
		}
		if err != nil {
			t.Fatal(err)
		}
		s.take(t, message.GetEvent())
	}
}

func all(id string) *sandpoolv1.AttachProcessRequest {
	return &sandpoolv1.AttachProcessRequest{ProcessId: id}
}

func TestStartProcessIsIdempotentAndBuffersOutput(t *testing.T) {
	client := processClient(t)
	marks := filepath.Join(t.TempDir(), "marks")
	request := &sandpoolv1.StartProcessRequest{
		ProcessId: "one", Command: fmt.Sprintf("echo run >> %s; echo out; echo err >&2; exit 3", marks),
	}
	first := start(t, client, request)
	for range 2 {
		s := attach(t, client, all("one"))
		if s.stdout.String() != "out\n" || s.stderr.String() != "err\n" || s.exit.GetExitCode() != 3 {
			t.Fatalf("%q %q %v", s.stdout.String(), s.stderr.String(), s.exit)
		}
	}
	if repeated := start(t, client, request); repeated.GetStartTime().AsTime() != first.GetStartTime().AsTime() {
		t.Fatalf("%v", repeated)
	}
	if found, err := os.ReadFile(marks); err != nil || string(found) != "run\n" {
		t.Fatalf("%q %v", found, err)
	}
	_, err := client.StartProcess(t.Context(), &sandpoolv1.StartProcessRequest{ProcessId: "one", Command: "other"})
	if status.Code(err) != codes.AlreadyExists {
		t.Fatal(err)
	}
	later := attach(t, client, &sandpoolv1.AttachProcessRequest{ProcessId: "one", StdoutOffset: 2, StderrOffset: -1})
	if later.stdout.String() != "t\n" || later.stderr.Len() != 0 {
		t.Fatalf("%q %q", later.stdout.String(), later.stderr.String())
	}
	if _, err := client.GetProcess(t.Context(), &sandpoolv1.GetProcessRequest{ProcessId: "none"}); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
}

func TestAttachReportsDroppedOutputAsGap(t *testing.T) {
	client := processClient(t)
	start(t, client, &sandpoolv1.StartProcessRequest{
		ProcessId: "p", Command: "head -c 100000 /dev/zero; printf end", OutputBufferBytes: proto.Int32(4096),
	})
	waitUntilExited(t, client, "p")
	s := attach(t, client, all("p"))
	if len(s.gaps) != 1 || s.gaps[0].GetStartOffset() != 0 || s.gaps[0].GetEndOffset()+int64(s.stdout.Len()) != 100003 {
		t.Fatalf("%v, then %d bytes", s.gaps, s.stdout.Len())
	}
	if !strings.HasSuffix(s.stdout.String(), "end") {
		t.Fatal("the end of the output is missing")
	}
}

func waitUntilExited(t *testing.T, client sandpoolv1.ProcessServiceClient, id string) *sandpoolv1.Process {
	t.Helper()
	attach(t, client, &sandpoolv1.AttachProcessRequest{ProcessId: id, StdoutOffset: -1, StderrOffset: -1})
	response, err := client.GetProcess(t.Context(), &sandpoolv1.GetProcessRequest{ProcessId: id})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetProcess()
}

// TestStalledClientBlocksTheProcess reads nothing for some time. The process must wait, and no output may be dropped.
func TestStalledClientBlocksTheProcess(t *testing.T) {
	client := processClient(t)
	const size = 64 << 20
	start(t, client, &sandpoolv1.StartProcessRequest{
		ProcessId: "p", Stdin: true, Command: fmt.Sprintf("read go; head -c %d /dev/zero", size),
	})
	stream, err := client.AttachProcess(t.Context(), all("p"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	write(t, client, "p", "go\n", true)
	// The process is blocked when its output has not grown between two checks.
	before, now := int64(-1), int64(0)
	for before != now {
		before = now
		time.Sleep(50 * time.Millisecond)
		now = record(t, client, "p").GetStdout().GetEndOffset()
	}
	if now == 0 || now > 8<<20 {
		t.Fatalf("%d bytes were read from the process while no client read", now)
	}
	var s seen
	for s.exit == nil {
		message, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		s.take(t, message.GetEvent())
	}
	if s.stdout.Len() != size || len(s.gaps) > 0 {
		t.Fatalf("%d bytes, %v", s.stdout.Len(), s.gaps)
	}
}

func record(t *testing.T, client sandpoolv1.ProcessServiceClient, id string) *sandpoolv1.Process {
	t.Helper()
	response, err := client.GetProcess(t.Context(), &sandpoolv1.GetProcessRequest{ProcessId: id})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetProcess()
}

func write(t *testing.T, client sandpoolv1.ProcessServiceClient, id, text string, closing bool) int64 {
	t.Helper()
	response, err := client.WriteProcessInput(t.Context(), &sandpoolv1.WriteProcessInputRequest{
		ProcessId: id, Input: &sandpoolv1.ProcessInput{Data: []byte(text), Close: closing},
	})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetStdinBytes()
}

func TestWriteProcessInputSkipsReceivedBytes(t *testing.T) {
	client := processClient(t)
	start(t, client, &sandpoolv1.StartProcessRequest{ProcessId: "p", Argv: []string{"cat"}, Stdin: true})
	if received := write(t, client, "p", "hello ", false); received != 6 {
		t.Fatal(received)
	}
	at := func(offset int64, text string, closing bool) error {
		_, err := client.WriteProcessInput(t.Context(), &sandpoolv1.WriteProcessInputRequest{
			ProcessId: "p", Input: &sandpoolv1.ProcessInput{Data: []byte(text), Offset: &offset, Close: closing},
		})
		return err
	}
	if err := at(7, "x", false); status.Code(err) != codes.OutOfRange {
		t.Fatal(err)
	}
	for range 2 {
		if err := at(3, "lo you", false); err != nil {
			t.Fatal(err)
		}
	}
	if err := at(9, "", true); err != nil {
		t.Fatal(err)
	}
	if s := attach(t, client, all("p")); s.stdout.String() != "hello you" {
		t.Fatalf("%q", s.stdout.String())
	}
	if err := at(9, "more", false); status.Code(err) != codes.FailedPrecondition {
		t.Fatal(err)
	}
}

func TestProcessReportsWhyItWasKilled(t *testing.T) {
	client := processClient(t)
	sleeper := func(id string) *sandpoolv1.StartProcessRequest {
		return &sandpoolv1.StartProcessRequest{ProcessId: id, Argv: []string{"sleep", "4711"}}
	}
	timed := sleeper("timed")
	timed.Timeout = durationpb.New(50 * time.Millisecond)
	idle := sleeper("idle")
	idle.IdleTimeout = durationpb.New(50 * time.Millisecond)
	start(t, client, timed)
	start(t, client, idle)
	start(t, client, sleeper("killed"))
	if _, err := client.KillProcess(t.Context(), &sandpoolv1.KillProcessRequest{ProcessId: "killed"}); err != nil {
		t.Fatal(err)
	}
	left := sleeper("left")
	left.KillOnDisconnect = true
	start(t, client, left)
	ctx, leave := context.WithCancel(t.Context())
	stream, err := client.AttachProcess(ctx, all("left"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	leave()
	// An attached client would keep the idle process alive, so the test uses GetProcess.
	eventually(t, func() bool {
		return record(t, client, "idle").GetState() == sandpoolv1.ProcessState_PROCESS_STATE_EXITED
	})
	for id, reason := range map[string]sandpoolv1.ExitReason{
		"timed":  sandpoolv1.ExitReason_EXIT_REASON_TIMED_OUT,
		"idle":   sandpoolv1.ExitReason_EXIT_REASON_IDLE_TIMED_OUT,
		"killed": sandpoolv1.ExitReason_EXIT_REASON_KILLED,
		"left":   sandpoolv1.ExitReason_EXIT_REASON_DISCONNECTED,
	} {
		if exit := waitUntilExited(t, client, id).GetExit(); exit.GetReason() != reason || exit.GetSignal() != int32(unix.SIGKILL) {
			t.Errorf("%s: %v", id, exit)
		}
	}
}

func TestTerminalSupportsInputResizeAndSignals(t *testing.T) {
	client := processClient(t)
	stream, err := client.ConnectProcess(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(message *sandpoolv1.ConnectProcessRequest) {
		t.Helper()
		if err := stream.Send(message); err != nil {
			t.Fatal(err)
		}
	}
	send(&sandpoolv1.ConnectProcessRequest{Message: &sandpoolv1.ConnectProcessRequest_Start{Start: &sandpoolv1.StartProcessRequest{
		ProcessId: "t", Argv: []string{"sh", "-i"}, Env: map[string]string{"PS1": "$ "},
		Terminal: &sandpoolv1.TerminalSize{Rows: 30, Cols: 100},
	}}})
	typed := func(text string) {
		send(&sandpoolv1.ConnectProcessRequest{Message: &sandpoolv1.ConnectProcessRequest_Input{
			Input: &sandpoolv1.ProcessInput{Data: []byte(text)},
		}})
	}
	var s seen
	until := func(text string) {
		t.Helper()
		for !strings.Contains(s.stdout.String(), text) {
			message, err := stream.Recv()
			if err != nil {
				t.Fatalf("%v; output so far %q", err, s.stdout.String())
			}
			s.take(t, message.GetEvent())
		}
		s.stdout.Reset()
	}
	until("$ ")
	typed("stty size\n")
	until("30 100")
	send(&sandpoolv1.ConnectProcessRequest{Message: &sandpoolv1.ConnectProcessRequest_Resize{
		Resize: &sandpoolv1.TerminalSize{Rows: 7, Cols: 9},
	}})
	typed("stty size; tty\n")
	until("7 9")
	// The test waits for the output of the program, not for the echo of the input.
	typed("sh -c 'echo now\"\"here; exec sleep 4711'\n")
	until("nowhere")
	typed("\x03")
	until("$ ")
	typed("echo code $?\n")
	until("code 130")
	send(&sandpoolv1.ConnectProcessRequest{Message: &sandpoolv1.ConnectProcessRequest_Input{
		Input: &sandpoolv1.ProcessInput{Close: true},
	}})
	for s.exit == nil {
		message, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		s.take(t, message.GetEvent())
	}
}

func TestServiceIsRestarted(t *testing.T) {
	client := processClient(t)
	runs := newPipe(t)
	start(t, client, &sandpoolv1.StartProcessRequest{
		ProcessId: "s", Command: fmt.Sprintf("echo $$ > %s; exit 1", runs.path),
		Service: &sandpoolv1.Service{Name: "web", RestartPolicy: sandpoolv1.RestartPolicy_RESTART_POLICY_ON_FAILURE},
	})
	for range 3 {
		runs.next(t)
	}
	_, err := client.StartProcess(t.Context(), &sandpoolv1.StartProcessRequest{
		ProcessId: "other", Command: "true", Service: &sandpoolv1.Service{Name: "web"},
	})
	if status.Code(err) != codes.FailedPrecondition {
		t.Fatal(err)
	}
	response, err := client.KillProcess(t.Context(), &sandpoolv1.KillProcessRequest{ProcessId: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if found := response.GetProcess(); found.GetRestarts() < 2 || found.GetState() != sandpoolv1.ProcessState_PROCESS_STATE_EXITED {
		t.Fatal(found)
	}
	repeated, err := client.RestartProcess(t.Context(), &sandpoolv1.RestartProcessRequest{ProcessId: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if repeated.GetProcess().GetState() == sandpoolv1.ProcessState_PROCESS_STATE_EXITED {
		t.Fatal(repeated)
	}
	runs.next(t)
}

// eventually polls a condition for which no event exists until it is true.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not become true")
		}
	}
}

func TestProcessIsDeletedAfterItsRetention(t *testing.T) {
	client := processClient(t)
	start(t, client, &sandpoolv1.StartProcessRequest{ProcessId: "p", Command: "true", Retention: durationpb.New(10 * time.Millisecond)})
	eventually(t, func() bool {
		_, err := client.GetProcess(t.Context(), &sandpoolv1.GetProcessRequest{ProcessId: "p"})
		if err != nil && status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
		return err != nil
	})
}

func TestOldestExitedProcessesAreDeletedAtTheLimit(t *testing.T) {
	client := processClient(t)
	for i := range 1030 {
		id := fmt.Sprint("p", i)
		start(t, client, &sandpoolv1.StartProcessRequest{ProcessId: id, Argv: []string{"true"}})
		waitUntilExited(t, client, id)
	}
	_, err := client.GetProcess(t.Context(), &sandpoolv1.GetProcessRequest{ProcessId: "p5"})
	if status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	record(t, client, "p6")
}

func TestListProcessesReturnsPages(t *testing.T) {
	client := processClient(t)
	for i := range 5 {
		start(t, client, &sandpoolv1.StartProcessRequest{ProcessId: fmt.Sprint("p", i), Command: "true"})
	}
	var ids []string
	token := ""
	for {
		response, err := client.ListProcesses(t.Context(), &sandpoolv1.ListProcessesRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range response.GetProcesses() {
			ids = append(ids, p.GetProcessId())
		}
		if token = response.GetNextPageToken(); token == "" {
			break
		}
	}
	if strings.Join(ids, " ") != "p0 p1 p2 p3 p4" {
		t.Fatal(ids)
	}
}
