package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/users"
)

func TestMain(m *testing.M) {
	unix.Umask(0o022)
	if os.Getuid() != 0 {
		panic("these tests change the owners of files; run them as root")
	}
	os.Exit(m.Run())
}

// bench is a service with a client on a real connection, and a working directory.
type bench struct {
	sandpoolv1.FileServiceClient
	service  *Service
	dir      string
	stopping chan struct{}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	etc := t.TempDir()
	database := users.Database{PasswdPath: filepath.Join(etc, "passwd"), GroupPath: filepath.Join(etc, "group")}
	put(t, database.PasswdPath, "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
	put(t, database.GroupPath, "root:x:0:\ngroup:x:1001:\nextra:x:44:app\n")
	b := &bench{stopping: make(chan struct{}), dir: t.TempDir()}
	b.service = New(Options{
		Users: database, DefaultUser: func() string { return "app" }, Stopping: b.stopping,
	})
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8<<20), ServerOption())
	sandpoolv1.RegisterFileServiceServer(server, b.service)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() { _ = server.Serve(listener) }() // Serve returns after Stop.
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() {
		connection.Close()
		server.Stop()
	})
	b.FileServiceClient = sandpoolv1.NewFileServiceClient(connection)
	return b
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func wantContent(t *testing.T, path, text string) {
	t.Helper()
	if data, err := os.ReadFile(path); err != nil || string(data) != text {
		t.Errorf("%s: %.80q, %v, want %.80q", path, data, err, text)
	}
}

func wantMissing(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s exists (%v)", path, err)
	}
}

// wantNames checks the names in a directory, including hidden names.
func wantNames(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(names) {
		t.Errorf("%s contains %q, want %q", dir, got, names)
		return
	}
	for i, name := range names {
		if got[i] != name {
			t.Errorf("%s contains %q, want %q", dir, got, names)
		}
	}
}

// wantError checks the code, the reason and, unless it is empty, the resource or the field of an error.
func wantError(t *testing.T, err error, code codes.Code, reason, about string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%v, want %v %s", err, code, reason)
		return
	}
	var gotReason, gotAbout string
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			gotReason = detail.GetReason()
			if resource := detail.GetMetadata()["resource"]; resource != "" {
				gotAbout = resource
			}
		case *errdetails.BadRequest:
			gotAbout = detail.GetFieldViolations()[0].GetField()
		}
	}
	if gotReason != reason || about != "" && gotAbout != about {
		t.Errorf("%v: reason %q about %q, want %q about %q", err, gotReason, gotAbout, reason, about)
	}
}

// read reads a file to its end.
func (b *bench) read(ctx context.Context, request *sandpoolv1.ReadFileRequest) (*sandpoolv1.FileInfo, string, error) {
	stream, err := b.ReadFile(ctx, request)
	if err != nil {
		return nil, "", err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, "", err
	}
	var data bytes.Buffer
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return first.GetFile(), data.String(), nil
		}
		if err != nil {
			return first.GetFile(), data.String(), err
		}
		data.Write(response.GetData())
	}
}

// write sends a file in parts and closes the requests.
func (b *bench) write(
	ctx context.Context, target *sandpoolv1.WriteFileTarget, parts ...string,
) (*sandpoolv1.FileInfo, error) {
	stream, err := b.WriteFile(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&sandpoolv1.WriteFileRequest{Part: &sandpoolv1.WriteFileRequest_Target{Target: target}})
	for _, part := range parts {
		if err == nil {
			err = stream.Send(&sandpoolv1.WriteFileRequest{Part: &sandpoolv1.WriteFileRequest_Data{Data: []byte(part)}})
		}
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	response, err := stream.CloseAndRecv()
	return response.GetFile(), err
}
