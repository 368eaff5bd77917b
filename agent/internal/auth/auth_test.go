package auth_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	"sandpool/agent/internal/auth"
)

const token = "f00dfeed"

type server struct {
	agentv1.UnimplementedAgentServiceServer
}

func (server) GetInfo(context.Context, *agentv1.GetInfoRequest) (*agentv1.GetInfoResponse, error) {
	return &agentv1.GetInfoResponse{Version: "accepted"}, nil
}

func connect(t *testing.T) *grpc.ClientConn {
	t.Helper()
	digest := sha256.Sum256([]byte(token))
	guard, err := auth.NewGuard(hex.EncodeToString(digest[:]))
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer(guard.ServerOptions()...)
	agentv1.RegisterAgentServiceServer(rpc, server{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go rpc.Serve(listener)
	t.Cleanup(rpc.Stop)
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

func with(t *testing.T, values ...string) context.Context {
	ctx := t.Context()
	for _, value := range values {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", value)
	}
	return ctx
}

func TestAcceptsValidToken(t *testing.T) {
	client := agentv1.NewAgentServiceClient(connect(t))
	for _, value := range []string{"Bearer " + token, "bearer " + token} {
		response, err := client.GetInfo(with(t, value), &agentv1.GetInfoRequest{})
		if err != nil || response.GetVersion() != "accepted" {
			t.Errorf("%q: %v, %v", value, response, err)
		}
	}
}

func TestEveryMethodRejectsInvalidTokens(t *testing.T) {
	connection := connect(t)
	methods := []string{"/sandpool.agent.v1.AgentService/DoesNotExist", "/no.such.Service/Method"}
	for _, method := range agentv1.AgentService_ServiceDesc.Methods {
		methods = append(methods, "/"+agentv1.AgentService_ServiceDesc.ServiceName+"/"+method.MethodName)
	}
	digest := sha256.Sum256([]byte(token))
	for _, values := range [][]string{
		nil, {""}, {"Bearer "}, {"Bearer wrong"}, {token}, {"Basic " + token}, {"Bearer " + token + "x"},
		{"Bearer " + hex.EncodeToString(digest[:])},
	} {
		for _, method := range methods {
			err := connection.Invoke(with(t, values...), method, &emptypb.Empty{}, &emptypb.Empty{})
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s with %q: %v, want UNAUTHENTICATED", method, values, err)
			}
		}
	}
	stream, err := connection.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/any.Service/Stream")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&emptypb.Empty{}); errors.Is(err, io.EOF) || status.Code(err) != codes.Unauthenticated {
		t.Errorf("stream without a token: %v, want UNAUTHENTICATED", err)
	}
}

func TestUnknownMethodIsUnimplementedWithValidToken(t *testing.T) {
	err := connect(t).Invoke(with(t, "Bearer "+token), "/no.such.Service/Method", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("%v, want UNIMPLEMENTED", err)
	}
}

func TestNewGuardRejectsMalformedDigest(t *testing.T) {
	for _, digest := range []string{"", "abc", "zz", hex.EncodeToString(make([]byte, 31))} {
		if _, err := auth.NewGuard(digest); err == nil {
			t.Errorf("%q was accepted", digest)
		}
	}
}
