// Package auth lets those in who know the container's token.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"sandpool/agent/internal/rpcerror"
)

const (
	header = "authorization"
	scheme = "bearer "
)

// Guard checks tokens against the SHA-256 of the right one, which is all that the container is told.
type Guard struct {
	want [sha256.Size]byte
}

// NewGuard takes the SHA-256 of the token in hexadecimal digits.
func NewGuard(digest string) (*Guard, error) {
	var guard Guard
	decoded, err := hex.DecodeString(digest)
	if err != nil || len(decoded) != len(guard.want) {
		return nil, fmt.Errorf("want %d hexadecimal digits", 2*len(guard.want))
	}
	copy(guard.want[:], decoded)
	return &guard, nil
}

// ServerOptions makes a gRPC server ask for the token on every method, those included that it does not have.
func (g *Guard) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		// gRPC answers unknown methods before any interceptor, unless there is a handler for them.
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			return rpcerror.New(codes.Unimplemented, "METHOD_UNKNOWN", "this agent has no method %s", method)
		}),
	}
}

func (g *Guard) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func (g *Guard) stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := g.check(stream.Context()); err != nil {
		return err
	}
	return handler(server, stream)
}

// Allows says whether the token is the right one. It compares digests in constant time, so that time tells nothing.
func (g *Guard) Allows(token []byte) bool {
	digest := sha256.Sum256(token)
	return subtle.ConstantTimeCompare(digest[:], g.want[:]) == 1
}

func (g *Guard) check(ctx context.Context) error {
	for _, value := range metadata.ValueFromIncomingContext(ctx, header) {
		if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
			continue
		}
		if g.Allows([]byte(value[len(scheme):])) {
			return nil
		}
	}
	return rpcerror.New(codes.Unauthenticated, "TOKEN_INVALID", "no valid token for this sandbox's agent")
}
