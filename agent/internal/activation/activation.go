// Package activation serves one call of Configure on a TCP connection without gRPC, for the activation of a sandbox at
// its claim.
//
// A gRPC call would be the most expensive part of a claim for the server. So the server opens the connection in
// advance, and at the claim only writes the request and reads the response. The comment of AgentService.Configure in
// the proto describes the format.
package activation

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
)

// Preamble is the start of such a connection. HTTP/2, and so gRPC, starts differently.
const Preamble = "SPH1"

const (
	maxTokenBytes = 1 << 10
	lengthBytes   = 4
)

// Server serves connections that start with the preamble.
type Server struct {
	// Allows reports whether a token is the token of this container.
	Allows func(token []byte) bool
	// Configure is the method of AgentService.
	Configure func(context.Context, *agentv1.ConfigureRequest) (*agentv1.ConfigureResponse, error)
	// MaxRequestBytes is the maximum size of a request.
	MaxRequestBytes uint32
	// Timeout is the time limit of each part of the exchange. The time between the token and the request is not
	// limited.
	Timeout time.Duration
}

// Serve serves connections until the listener is closed.
func (s *Server) Serve(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			if err := s.serve(connection); err != nil {
				slog.Info("activation failed", "error", err)
			}
		}()
	}
}

// serve reads the preamble, the token and one request. On an error it closes the connection without a response. The
// server then calls Configure by gRPC and gets the error.
func (s *Server) serve(connection net.Conn) error {
	if err := connection.SetDeadline(time.Now().Add(s.Timeout)); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, connection, int64(len(Preamble))); err != nil {
		return err
	}
	token, err := readFrame(connection, maxTokenBytes)
	if err != nil {
		return err
	}
	if !s.Allows(token) {
		return errors.New("the token is not valid")
	}
	// The claim can follow days later. TCP keep-alive detects a server that no longer exists.
	if err := connection.SetDeadline(time.Time{}); err != nil {
		return err
	}
	length, err := readLength(connection, s.MaxRequestBytes)
	if errors.Is(err, io.EOF) {
		return nil // The connection was not used.
	}
	if err != nil {
		return err
	}
	if err := connection.SetDeadline(time.Now().Add(s.Timeout)); err != nil {
		return err
	}
	return s.configure(connection, length)
}

func (s *Server) configure(connection net.Conn, length uint32) error {
	content := make([]byte, length)
	if _, err := io.ReadFull(connection, content); err != nil {
		return err
	}
	var request agentv1.ConfigureRequest
	if err := proto.Unmarshal(content, &request); err != nil {
		return errors.New("the request is not a ConfigureRequest") // The original error could contain a part of a secret.
	}
	response, err := s.Configure(context.Background(), &request)
	if err != nil {
		return err
	}
	encoded, err := proto.Marshal(response)
	if err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, lengthBytes+len(encoded)), uint32(len(encoded)))
	_, err = connection.Write(append(frame, encoded...))
	return err
}

func readFrame(from io.Reader, limit uint32) ([]byte, error) {
	length, err := readLength(from, limit)
	if err != nil {
		return nil, err
	}
	content := make([]byte, length)
	_, err = io.ReadFull(from, content)
	return content, err
}

func readLength(from io.Reader, limit uint32) (uint32, error) {
	var prefix [lengthBytes]byte
	if _, err := io.ReadFull(from, prefix[:]); err != nil {
		return 0, err
	}
	length := binary.BigEndian.Uint32(prefix[:])
	if length > limit {
		return 0, fmt.Errorf("the part has %d bytes, the limit is %d bytes", length, limit)
	}
	return length, nil
}
