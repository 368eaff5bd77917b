package handover

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
)

const token = "the token"

// start serves on a loopback port; configured gets each request.
func start(t *testing.T, timeout time.Duration, refuse bool) (address string, configured chan *agentv1.ConfigureRequest) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	configured = make(chan *agentv1.ConfigureRequest, 1)
	server := &Server{
		Allows: func(given []byte) bool { return string(given) == token },
		Configure: func(_ context.Context, request *agentv1.ConfigureRequest) (*agentv1.ConfigureResponse, error) {
			configured <- request
			if refuse {
				return nil, errors.New("no")
			}
			return &agentv1.ConfigureResponse{
				Entrypoint: &agentv1.EntrypointStatus{State: agentv1.EntrypointState_ENTRYPOINT_STATE_NONE},
			}, nil
		},
		MaxRequestBytes: 1 << 10,
		Timeout:         timeout,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		listener.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("serving ended with %v", err)
		}
	})
	return listener.Addr().String(), configured
}

func frame(content []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(content))), content...)
}

func request(t *testing.T) []byte {
	t.Helper()
	content, err := proto.Marshal(&agentv1.ConfigureRequest{Environment: map[string]string{"NAME": "value"}})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// say writes to a new connection and reads until the agent ends it.
func say(t *testing.T, address string, parts ...[]byte) []byte {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	for _, part := range parts {
		if _, err := connection.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := connection.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// A reset after bytes that the agent did not want to read is an end like any other.
	answer, err := io.ReadAll(connection)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the agent keeps the connection open")
	}
	return answer
}

func TestARequestIsAnsweredAndTheConnectionEnds(t *testing.T) {
	address, configured := start(t, 20*time.Second, false)
	answer := say(t, address, []byte(Preamble), frame([]byte(token)), frame(request(t)))
	if got := (<-configured).GetEnvironment(); got["NAME"] != "value" {
		t.Errorf("environment: %v", got)
	}
	var response agentv1.ConfigureResponse
	if len(answer) < lengthBytes || int(binary.BigEndian.Uint32(answer)) != len(answer)-lengthBytes ||
		proto.Unmarshal(answer[lengthBytes:], &response) != nil ||
		response.GetEntrypoint().GetState() != agentv1.EntrypointState_ENTRYPOINT_STATE_NONE {
		t.Errorf("answer %q", answer)
	}
}

func TestNothingIsDoneForOthers(t *testing.T) {
	address, configured := start(t, 200*time.Millisecond, false)
	for name, parts := range map[string][][]byte{
		"wrong token":       {[]byte(Preamble), frame([]byte("another")), frame(request(t))},
		"no token":          {[]byte(Preamble), frame(nil), frame(request(t))},
		"long token":        {[]byte(Preamble), frame(make([]byte, maxTokenBytes+1)), frame(request(t))},
		"token in part":     {[]byte(Preamble), frame([]byte(token))[:8]},
		"silence":           {[]byte(Preamble)},
		"large request":     {[]byte(Preamble), frame([]byte(token)), frame(make([]byte, 1<<10+1))},
		"request in part":   {[]byte(Preamble), frame([]byte(token)), frame(request(t))[:8]},
		"no request at all": {[]byte(Preamble), frame([]byte(token)), frame([]byte("\xff\xff\xff"))},
	} {
		if answer := say(t, address, parts...); len(answer) > 0 {
			t.Errorf("%s: answered with %q", name, answer)
		}
	}
	if len(configured) > 0 {
		t.Error("one of them was done")
	}
}

func TestARefusalIsAnEnd(t *testing.T) {
	address, configured := start(t, 20*time.Second, true)
	if answer := say(t, address, []byte(Preamble), frame([]byte(token)), frame(request(t))); len(answer) > 0 {
		t.Errorf("answered with %q", answer)
	}
	<-configured
}

func TestAConnectionMayWaitLongerThanTheTimeout(t *testing.T) {
	address, configured := start(t, 100*time.Millisecond, false)
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := connection.Write(append([]byte(Preamble), frame([]byte(token))...)); err != nil {
		t.Fatal(err)
	}
	// Nothing tells that time has passed without anything happening, but time itself.
	if err := connection.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := connection.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("the agent ended it: %v", err)
	}
	if _, err := connection.Write(frame(request(t))); err != nil {
		t.Fatal(err)
	}
	<-configured
}
