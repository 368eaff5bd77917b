// Package auth authenticates calls by the token of the container.
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

// Guard checks tokens against the SHA-256 of the valid token. The container does not get the token itself.
type Guard struct {
	want [sha256.Size]byte
}

// NewGuard returns a guard for the SHA-256 of the token in hexadecimal digits.
func NewGuard(digest string) (*Guard, error) {
	var guard Guard
	decoded, err := hex.DecodeString(digest)
	if err != nil || len(decoded) != len(guard.want) {
		return nil, fmt.Errorf("got %d characters, want %d hexadecimal digits", len(digest), 2*len(guard.want))
	}
	copy(guard.want[:], decoded)
	return &guard, nil
}

// ServerOptions returns options with which a gRPC server requires the token for every method, including unknown
// methods.
func (g *Guard) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		// Without this handler gRPC responds to unknown methods before it calls an interceptor.
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			return rpcerror.New(codes.Unimplemented, "METHOD_UNKNOWN",
				"method %s does not exist in this version of the agent; create another sandbox", method)
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

// Allows reports whether the token is valid. It compares digests in constant time.
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
	return rpcerror.New(codes.Unauthenticated, "TOKEN_INVALID",
		"the call has no valid token for the agent of this sandbox; set the metadata authorization: Bearer <token>")
}
