// Package tunnel forwards TCP connections to ports of the sandbox: OpenTunnel of sandpool.v1.
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

// Service implements the part of PortService that the agent serves.
type Service struct {
	sandpoolv1.UnimplementedPortServiceServer

	// ownPort is the port of the agent. Tunnels to it are rejected.
	ownPort int32
	open    chan struct{}
	// addresses returns the addresses of the sandbox.
	addresses func() ([]net.Addr, error)
}

// New returns a service for an agent that listens on ownPort.
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
		return rpcerror.BadField(reasonInvalidField, "target", "must be set in the first message")
	}
	if target.GetPort() == s.ownPort {
		return rpcerror.BadField(reasonInvalidField, "target.port", "%d is the port of the agent; use another port", target.GetPort())
	}
	select {
	case s.open <- struct{}{}:
		defer func() { <-s.open }()
	default:
		return rpcerror.New(codes.ResourceExhausted, reasonLimit,
			"%d tunnels to this sandbox are open, which is the limit; close one", maxTunnels)
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

// carry forwards bytes in both directions until the port closes its direction or one of the connections fails. It reads
// a chunk only after the previous one was sent.
func carry(stream sandpoolv1.PortService_OpenTunnelServer, connection *net.TCPConn, port int32) error {
	writer := &writer{connection: connection}
	// When the client has disconnected, closing the connection ends the Read below.
	stop := context.AfterFunc(stream.Context(), func() { connection.Close() })
	defer stop()
	feedErr := make(chan error, 1)
	go func() {
		err := feed(stream, writer)
		if err != nil {
			connection.Close()
		}
		feedErr <- err
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
			// The kernel reports a reset once. If a write got it, the next read returns end of file.
			if cause := writer.failure(); errors.Is(cause, syscall.ECONNRESET) {
				return errReset(port, cause)
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			if cause := stream.Context().Err(); cause != nil {
				return cause
			}
			return <-feedErr
		default:
			return errReset(port, err)
		}
	}
}

// writer writes to a connection and stores the error.
type writer struct {
	connection *net.TCPConn

	// mu is held during each write, so that failure waits for its result.
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

// feed forwards the requests of the client and their end to the connection.
func feed(stream sandpoolv1.PortService_OpenTunnelServer, writer *writer) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			// The port can continue to send after its input is closed.
			_ = writer.connection.CloseWrite()
			return nil
		}
		if err != nil {
			return err
		}
		if message.GetTarget() != nil {
			return rpcerror.BadField(reasonInvalidField, "target", "must be set in the first message only")
		}
		if err := writer.write(message.GetData()); err != nil {
			// The reader returns the error of the connection.
			return nil
		}
	}
}

func errReset(port int32, err error) error {
	return rpcerror.About(codes.Unavailable, reasonReset, strconv.Itoa(int(port)),
		"port %d of the sandbox reset the connection: %v; connect again", port, err)
}

// connect connects to the port on the first address of the sandbox on which a process listens.
func (s *Service) connect(ctx context.Context, target *sandpoolv1.TunnelTarget) (*net.TCPConn, error) {
	timeout := defaultTimeout
	if target.GetConnectTimeout() != nil {
		timeout = target.GetConnectTimeout().AsDuration()
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
		// An address that the sandbox does not have gives no information about the port.
		if failure == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			failure = err
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	if errors.Is(failure, syscall.ECONNREFUSED) {
		return nil, rpcerror.About(codes.FailedPrecondition, reasonRefused, port,
			"no process listens on port %s of the sandbox; start the process and wait until it listens", port)
	}
	return nil, rpcerror.About(codes.Unavailable, reasonUnreachable, port,
		"connecting to port %s of the sandbox failed: %v; check the process that listens on it and try again", port, failure)
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
