package monitor

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/logs"
)

// client returns a gRPC client of the service.
func client(t *testing.T, service *Service) sandpoolv1.MonitorServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	sandpoolv1.RegisterMonitorServiceServer(server, service)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	connection, err := grpc.NewClient("passthrough:sandbox", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return sandpoolv1.NewMonitorServiceClient(connection)
}

// TestReadLogsSendsKeepAlivesForAQuietSource lets another source write continuously.
func TestReadLogsSendsKeepAlivesForAQuietSource(t *testing.T) {
	buffer := logs.New(time.Now)
	service := New(buffer, make(chan struct{}))
	service.keepAlive = 50 * time.Millisecond
	noisy := buffer.Writer("entrypoint", sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			_, _ = noisy.Write([]byte("line\n"))
			time.Sleep(time.Millisecond)
		}
	}()
	defer stop()
	stream, err := client(t, service).ReadLogs(ctx, &sandpoolv1.ReadLogsRequest{Sources: []string{"web"}, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		message, err := stream.Recv()
		if err != nil || len(message.GetEntries()) != 0 {
			t.Fatal(message, err)
		}
	}
}

func TestReadLogsReportsDroppedEntries(t *testing.T) {
	buffer := logs.New(time.Now)
	writer := buffer.Writer("web", sandpoolv1.OutputStream_OUTPUT_STREAM_STDOUT)
	for range 3000 {
		_, _ = writer.Write(append(make([]byte, 1000), '\n'))
	}
	stream, err := client(t, New(buffer, nil)).ReadLogs(t.Context(), &sandpoolv1.ReadLogsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var dropped, seen int64
	for {
		message, err := stream.Recv()
		if err != nil {
			break
		}
		dropped += message.GetDroppedEntries()
		seen += int64(len(message.GetEntries()))
	}
	if dropped == 0 || dropped+seen != 3000 {
		t.Fatal(dropped, seen)
	}
}

func TestParseNetworkSumsAllInterfacesExceptLoopback(t *testing.T) {
	received, sent := parseNetwork([]byte(`Inter-|   Receive                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1000       2    0    0    0     0          0         0      200       2    0    0    0     0       0          0
  eth1:       5       2    0    0    0     0          0         0        7       2    0    0    0     0       0          0
`))
	if received != 1005 || sent != 207 {
		t.Fatal(received, sent)
	}
}

func TestLimitReturnsZeroForUnlimited(t *testing.T) {
	for text, want := range map[string]int64{"max": 0, "9223372036854771712": 0, "512": 512, "": 0} {
		if got := limit(text, true); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}
