package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

// client returns a gRPC client of PortService.
func client(t *testing.T) sandpoolv1.PortServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	sandpoolv1.RegisterPortServiceServer(server, New(1))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	connection, err := grpc.NewClient("passthrough:sandbox", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return sandpoolv1.NewPortServiceClient(connection)
}

// listen accepts one connection and passes it to serve.
func listen(t *testing.T, serve func(*net.TCPConn)) int32 {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		connection, err := listener.Accept()
		if err == nil {
			serve(connection.(*net.TCPConn))
		}
	}()
	return int32(listener.Addr().(*net.TCPAddr).Port)
}

type tunnelStream = grpc.BidiStreamingClient[sandpoolv1.OpenTunnelRequest, sandpoolv1.OpenTunnelResponse]

func open(t *testing.T, client sandpoolv1.PortServiceClient, port int32) tunnelStream {
	t.Helper()
	stream, err := client.OpenTunnel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	target := &sandpoolv1.OpenTunnelRequest_Target{Target: &sandpoolv1.TunnelTarget{Port: port}}
	if err := stream.Send(&sandpoolv1.OpenTunnelRequest{Part: target}); err != nil {
		t.Fatal(err)
	}
	return stream
}

func send(stream tunnelStream, data []byte) error {
	return stream.Send(&sandpoolv1.OpenTunnelRequest{Part: &sandpoolv1.OpenTunnelRequest_Data{Data: data}})
}

// readAll returns all data of the stream, and its error.
func readAll(stream tunnelStream) ([]byte, error) {
	var all []byte
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, message.GetData()...)
	}
}

func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func TestTunnelForwardsBothDirectionsUntilBothAreClosed(t *testing.T) {
	port := listen(t, func(connection *net.TCPConn) {
		data, _ := io.ReadAll(connection)
		_, _ = connection.Write(append([]byte("got "), data...))
		connection.Close()
	})
	stream := open(t, client(t), port)
	if err := send(stream, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if all, err := readAll(stream); err != nil || string(all) != "got hello" {
		t.Fatalf("%q %v", all, err)
	}
}

// TestResetIsReported resets connections during an upload. It must be reported no matter which direction gets it first.
func TestResetIsReported(t *testing.T) {
	ports := client(t)
	for range 100 {
		port := listen(t, func(connection *net.TCPConn) {
			_, _ = connection.Read(make([]byte, 1))
			_ = connection.SetLinger(0)
			connection.Close()
		})
		stream := open(t, ports, port)
		go func() {
			for send(stream, make([]byte, 32<<10)) == nil {
			}
		}()
		if _, err := readAll(stream); status.Code(err) != codes.Unavailable || reason(err) != reasonReset {
			t.Fatalf("%v %q", err, reason(err))
		}
	}
}

func TestRejectsPortWithoutListenerAndPortOfTheAgent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	listener.Close()
	ports := client(t)
	if _, err := readAll(open(t, ports, port)); status.Code(err) != codes.FailedPrecondition || reason(err) != reasonRefused {
		t.Fatalf("%v %q", err, reason(err))
	}
	if _, err := readAll(open(t, ports, 1)); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}
