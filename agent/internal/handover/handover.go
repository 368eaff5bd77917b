// Package handover takes one Configure without gRPC: what stands between a caller and a sandbox that is ready.
//
// A gRPC call costs the server more than all else in the hand-over of a ready container. So the server opens a
// connection of this kind beforehand, while nobody waits, and later writes the request and reads the answer. The proto
// (AgentService.Configure) says how both look on the wire.
package handover

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

// Preamble is what such a connection begins with. HTTP/2, and with it gRPC, begins otherwise.
const Preamble = "SPH1"

const (
	maxTokenBytes = 1 << 10
	lengthBytes   = 4
)

// Server serves connections that begin with the preamble.
type Server struct {
	// Allows says whether a token is the container's.
	Allows func(token []byte) bool
	// Configure is AgentService's.
	Configure func(context.Context, *agentv1.ConfigureRequest) (*agentv1.ConfigureResponse, error)
	// MaxRequestBytes is the largest request.
	MaxRequestBytes uint32
	// Timeout is how long each part of the exchange may take; between the token and the request any time may pass.
	Timeout time.Duration
}

// Serve takes connections until the listener is closed.
func (s *Server) Serve(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			if err := s.serve(connection); err != nil {
				slog.Info("a hand-over failed", "error", err)
			}
		}()
	}
}

// serve takes the preamble, the token and one request. Any error ends the connection without an answer: the server
// asks again by gRPC then, and hears why.
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
		return errors.New("no valid token")
	}
	// It may be days until somebody wants the sandbox. TCP's own keep-alive notices a server that has vanished.
	if err := connection.SetDeadline(time.Time{}); err != nil {
		return err
	}
	length, err := readLength(connection, s.MaxRequestBytes)
	if errors.Is(err, io.EOF) {
		return nil // never used
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
		return errors.New("the request is no ConfigureRequest") // The error might hold a part of a secret.
	}
	response, err := s.Configure(context.Background(), &request)
	if err != nil {
		return err
	}
	answer, err := proto.Marshal(response)
	if err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, lengthBytes+len(answer)), uint32(len(answer)))
	_, err = connection.Write(append(frame, answer...))
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
		return 0, fmt.Errorf("a part of %d bytes, at most %d are taken", length, limit)
	}
	return length, nil
}
