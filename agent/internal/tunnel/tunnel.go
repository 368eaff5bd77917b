// Package tunnel carries TCP connections to ports of the sandbox: OpenTunnel of sandpool.v1.
package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

const (
	chunkBytes     = 64 << 10
	maxTunnels     = 512
	defaultTimeout = 10 * time.Second

	reasonInvalidField = "INVALID_FIELD"
	reasonRefused      = "PORT_REFUSED"
	reasonUnreachable  = "PORT_UNREACHABLE"
	reasonReset        = "PORT_RESET"
	reasonLimit        = "TUNNEL_LIMIT"
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// Service implements PortService, as far as the agent serves it.
type Service struct {
	sandpoolv1.UnimplementedPortServiceServer

	// ownPort is the agent's: nobody in the sandbox's name is let to it.
	ownPort int32
	open    chan struct{}
	// addresses are the sandbox's own besides the loopback ones.
	addresses func() ([]net.Addr, error)
}

// New makes a service for an agent that listens on that port.
func New(ownPort int) *Service {
	return &Service{ownPort: int32(ownPort), open: make(chan struct{}, maxTunnels), addresses: net.InterfaceAddrs}
}

// OpenTunnel implements PortService.
func (s *Service) OpenTunnel(stream sandpoolv1.PortService_OpenTunnelServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	target := first.GetTarget()
	if target == nil {
		return rpcerror.BadField(reasonInvalidField, "target", "must come first")
	}
	if target.GetPort() == s.ownPort {
		return rpcerror.BadField(reasonInvalidField, "target.port", "%d is the sandbox's agent's own", target.GetPort())
	}
	select {
	case s.open <- struct{}{}:
		defer func() { <-s.open }()
	default:
		return rpcerror.New(codes.ResourceExhausted, reasonLimit, "%d tunnels are open into this sandbox already", maxTunnels)
	}
	connection, err := s.connect(stream.Context(), target)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := stream.Send(&sandpoolv1.OpenTunnelResponse{
		Part: &sandpoolv1.OpenTunnelResponse_Opened{Opened: &sandpoolv1.TunnelOpened{}},
	}); err != nil {
		return err
	}
	return carry(stream, connection, target.GetPort())
}

// carry passes bytes on in both directions until the port has closed its side, or one of the two ends breaks. Each chunk
// is taken when the one before has gone.
func carry(stream sandpoolv1.PortService_OpenTunnelServer, connection *net.TCPConn, port int32) error {
	writer := &writer{connection: connection}
	// Closing the connection is what ends the reading below when the client has gone.
	stop := context.AfterFunc(stream.Context(), func() { connection.Close() })
	defer stop()
	refused := make(chan error, 1)
	go func() {
		err := feed(stream, writer)
		if err != nil {
			connection.Close()
		}
		refused <- err
	}()
	buffer := chunks.Get().(*[]byte)
	defer chunks.Put(buffer)
	for {
		n, err := connection.Read(*buffer)
		if n > 0 {
			part := &sandpoolv1.OpenTunnelResponse_Data{Data: (*buffer)[:n]}
			if err := stream.Send(&sandpoolv1.OpenTunnelResponse{Part: part}); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			// The kernel tells of a reset once: if writing has heard of it, reading finds the end.
			if cause := writer.failure(); errors.Is(cause, syscall.ECONNRESET) {
				return errReset(port, cause)
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			if cause := stream.Context().Err(); cause != nil {
				return cause
			}
			return <-refused
		default:
			return errReset(port, err)
		}
	}
}

// writer writes to a connection and remembers how that failed.
type writer struct {
	connection *net.TCPConn

	// mu is held over each write, so that its outcome is known to whoever asks after it.
	mu  sync.Mutex
	err error
}

func (w *writer) write(data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, w.err = w.connection.Write(data)
	return w.err
}

func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// feed passes on what the client sends, and the end of it.
func feed(stream sandpoolv1.PortService_OpenTunnelServer, writer *writer) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			// A port that does not care reads on; what it says still comes.
			_ = writer.connection.CloseWrite()
			return nil
		}
		if err != nil {
			return err
		}
		if message.GetTarget() != nil {
			return rpcerror.BadField(reasonInvalidField, "target", "comes in the first message only")
		}
		if err := writer.write(message.GetData()); err != nil {
			// Reading says how the connection ended.
			return nil
		}
	}
}

func errReset(port int32, err error) error {
	return rpcerror.About(codes.Unavailable, reasonReset, strconv.Itoa(int(port)),
		"what listens on port %d broke the connection: %v", port, err)
}

// connect connects to the port on the first of the sandbox's addresses where something listens.
func (s *Service) connect(ctx context.Context, target *sandpoolv1.TunnelTarget) (*net.TCPConn, error) {
	timeout := defaultTimeout
	if target.ConnectTimeoutSecs != nil {
		timeout = time.Duration(target.GetConnectTimeoutSecs() * float64(time.Second))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	port := strconv.Itoa(int(target.GetPort()))
	var failure error
	for _, host := range s.hosts() {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err == nil {
			return connection.(*net.TCPConn), nil
		}
		// An address that the sandbox does not have says nothing of the port.
		if failure == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			failure = err
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	if errors.Is(failure, syscall.ECONNREFUSED) {
		return nil, rpcerror.About(codes.FailedPrecondition, reasonRefused, port,
			"nothing listens on port %s of the sandbox; start what should, and wait until it listens", port)
	}
	return nil, rpcerror.About(codes.Unavailable, reasonUnreachable, port,
		"port %s of the sandbox does not accept a connection: %v", port, failure)
}

func (s *Service) hosts() []string {
	hosts := []string{"127.0.0.1", "::1"}
	addresses, err := s.addresses()
	if err != nil {
		return hosts
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLoopback() && !network.IP.IsLinkLocalUnicast() {
			hosts = append(hosts, network.IP.String())
		}
	}
	return hosts
}
