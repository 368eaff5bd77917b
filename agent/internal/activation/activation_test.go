package activation

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

// start serves on a loopback port. The channel configured receives each request.
func start(t *testing.T, timeout time.Duration, reject bool) (address string, configured chan *agentv1.ConfigureRequest) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	configured = make(chan *agentv1.ConfigureRequest, 1)
	server := &Server{
		Allows: func(got []byte) bool { return string(got) == token },
		Configure: func(_ context.Context, request *agentv1.ConfigureRequest) (*agentv1.ConfigureResponse, error) {
			configured <- request
			if reject {
				return nil, errors.New("no")
			}
			return &agentv1.ConfigureResponse{
				Entrypoint: &agentv1.EntrypointStatus{State: agentv1.EntrypointState_ENTRYPOINT_STATE_NONE},
			}, nil
		},
		MaxRequestBytes: 1 << 10,
		Timeout:         timeout,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		listener.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve returned %v", err)
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

// exchange writes to a new connection and reads until the agent closes it.
func exchange(t *testing.T, address string, parts ...[]byte) []byte {
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
	// The agent can reset the connection if it did not read all bytes. This counts as closed.
	response, err := io.ReadAll(connection)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the agent did not close the connection")
	}
	return response
}

func TestServeReturnsResponseAndClosesConnection(t *testing.T) {
	address, configured := start(t, 20*time.Second, false)
	response := exchange(t, address, []byte(Preamble), frame([]byte(token)), frame(request(t)))
	if got := (<-configured).GetEnvironment(); got["NAME"] != "value" {
		t.Errorf("environment: %v", got)
	}
	var decoded agentv1.ConfigureResponse
	if len(response) < lengthBytes || int(binary.BigEndian.Uint32(response)) != len(response)-lengthBytes ||
		proto.Unmarshal(response[lengthBytes:], &decoded) != nil ||
		decoded.GetEntrypoint().GetState() != agentv1.EntrypointState_ENTRYPOINT_STATE_NONE {
		t.Errorf("got response %q", response)
	}
}

func TestServeRejectsInvalidExchanges(t *testing.T) {
	address, configured := start(t, 200*time.Millisecond, false)
	for name, parts := range map[string][][]byte{
		"wrong token":       {[]byte(Preamble), frame([]byte("another")), frame(request(t))},
		"no token":          {[]byte(Preamble), frame(nil), frame(request(t))},
		"long token":        {[]byte(Preamble), frame(make([]byte, maxTokenBytes+1)), frame(request(t))},
		"partial token":     {[]byte(Preamble), frame([]byte(token))[:8]},
		"no token at all":   {[]byte(Preamble)},
		"large request":     {[]byte(Preamble), frame([]byte(token)), frame(make([]byte, 1<<10+1))},
		"partial request":   {[]byte(Preamble), frame([]byte(token)), frame(request(t))[:8]},
		"malformed request": {[]byte(Preamble), frame([]byte(token)), frame([]byte("\xff\xff\xff"))},
	} {
		if response := exchange(t, address, parts...); len(response) > 0 {
			t.Errorf("%s: got response %q", name, response)
		}
	}
	if len(configured) > 0 {
		t.Error("a request was applied")
	}
}

func TestServeClosesConnectionOnError(t *testing.T) {
	address, configured := start(t, 20*time.Second, true)
	if response := exchange(t, address, []byte(Preamble), frame([]byte(token)), frame(request(t))); len(response) > 0 {
		t.Errorf("got response %q", response)
	}
	<-configured
}

func TestConnectionCanWaitLongerThanTheTimeout(t *testing.T) {
	address, configured := start(t, 100*time.Millisecond, false)
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := connection.Write(append([]byte(Preamble), frame([]byte(token))...)); err != nil {
		t.Fatal(err)
	}
	// The connection must stay open although nothing happens for longer than the timeout.
	if err := connection.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := connection.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("the agent closed the connection: %v", err)
	}
	if _, err := connection.Write(frame(request(t))); err != nil {
		t.Fatal(err)
	}
	<-configured
}
