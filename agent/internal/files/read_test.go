package files

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

func TestReadFileReturnsRequestedRange(t *testing.T) {
	b := newBench(t)
	text := strings.Repeat("0123456789", 100_000)
	put(t, b.path("file"), text)
	must(t, os.Symlink("file", b.path("link")))
	for _, test := range []struct {
		name   string
		offset int64
		length *int64
		want   string
	}{
		{"file", 0, nil, text},
		{"link", 0, nil, text},
		{"file", 999_990, nil, "0123456789"},
		{"file", 1_000_000, nil, ""},
		{"file", 5, proto.Int64(7), "5678901"},
		{"file", 5, proto.Int64(0), ""},
		{"file", 300_000, proto.Int64(500_000), text[300_000:800_000]},
	} {
		info, got, err := b.read(t.Context(), &sandpoolv1.ReadFileRequest{
			Path: b.path(test.name), Offset: test.offset, Length: test.length,
		})
		if err != nil || got != test.want {
			t.Errorf("%v: %d bytes, %v", test, len(got), err)
		}
		if info.GetSize() != 1_000_000 || info.GetType() != sandpoolv1.FileType_FILE_TYPE_FILE || info.GetPath() != b.path(test.name) {
			t.Errorf("%v: %v", test, info)
		}
	}
	_, _, err := b.read(t.Context(), &sandpoolv1.ReadFileRequest{Path: b.path("file"), Offset: 1_000_001})
	wantError(t, err, codes.OutOfRange, reasonOffsetOutOfRange, b.path("file"))
}

func TestReadFileRejectsOutdatedEtag(t *testing.T) {
	b := newBench(t)
	put(t, b.path("file"), "before")
	info, _, err := b.read(t.Context(), &sandpoolv1.ReadFileRequest{Path: b.path("file")})
	must(t, err)
	request := &sandpoolv1.ReadFileRequest{Path: b.path("file"), Offset: 3, Etag: info.GetEtag()}
	if _, got, err := b.read(t.Context(), request); err != nil || got != "ore" {
		t.Errorf("%q, %v", got, err)
	}
	_, err = b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: b.path("file")}, "behind")
	must(t, err)
	_, _, err = b.read(t.Context(), request)
	wantError(t, err, codes.Aborted, reasonEtagMismatch, b.path("file"))
}

func TestReadFileRejectsOtherObjects(t *testing.T) {
	b := newBench(t)
	put(t, b.path("file"), "x")
	must(t, unix.Mkfifo(b.path("pipe"), 0o666))
	must(t, os.Symlink("pipe", b.path("to-pipe")))
	must(t, os.Symlink("loop", b.path("loop")))
	for path, reason := range map[string]struct {
		code   codes.Code
		reason string
	}{
		b.path("none"):               {codes.NotFound, reasonNotFound},
		b.path("none", "none"):       {codes.NotFound, reasonNotFound},
		b.path("file", "x"):          {codes.FailedPrecondition, reasonNotDirectory},
		b.dir:                        {codes.FailedPrecondition, reasonIsDirectory},
		"/":                          {codes.FailedPrecondition, reasonIsDirectory},
		b.path("pipe"):               {codes.FailedPrecondition, reasonNotFile},
		b.path("to-pipe"):            {codes.FailedPrecondition, reasonNotFile},
		"/dev/zero":                  {codes.FailedPrecondition, reasonNotFile},
		"/dev/tty":                   {codes.FailedPrecondition, reasonNotFile},
		b.path("loop"):               {codes.FailedPrecondition, reasonNotPermitted},
		"/proc/self/mem":             {codes.FailedPrecondition, reasonNotPermitted},
		"/proc/self/environ":         {codes.FailedPrecondition, reasonNotPermitted},
		"/proc/thread-self/environ":  {codes.FailedPrecondition, reasonNotPermitted},
		"/proc/self/task/self":       {codes.NotFound, reasonNotFound},
		"/proc/self/exe":             {codes.FailedPrecondition, reasonNotPermitted},
		"/proc/self/root/etc/passwd": {codes.FailedPrecondition, reasonNotPermitted},
		"/proc/self/fd/0":            {codes.FailedPrecondition, reasonNotPermitted},
	} {
		_, _, err := b.read(t.Context(), &sandpoolv1.ReadFileRequest{Path: path})
		wantError(t, err, reason.code, reason.reason, path)
	}
	_, _, err := b.read(t.Context(), &sandpoolv1.ReadFileRequest{Path: b.path(strings.Repeat("n", 256))})
	wantError(t, err, codes.InvalidArgument, reasonPathInvalid, "path")
}

func TestReadFileReadsGeneratedFilesToTheirEnd(t *testing.T) {
	b := newBench(t)
	for path, want := range map[string]string{"/proc/meminfo": "MemTotal:", "/proc/mounts": " / ", "/proc/self/status": "Tgid:"} {
		if _, got, err := b.read(t.Context(), &sandpoolv1.ReadFileRequest{Path: path}); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %.100q, %v", path, got, err)
		}
	}
}

func TestStalledReaderHoldsItsBufferUntilTheCallEnds(t *testing.T) {
	b := newBench(t)
	file, err := os.Create(b.path("large"))
	must(t, err)
	defer file.Close()
	must(t, file.Truncate(1<<30))
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := b.ReadFile(ctx, &sandpoolv1.ReadFileRequest{Path: b.path("large")})
	must(t, err)
	_, err = stream.Recv()
	must(t, err)
	// The call holds the large buffer until it ends, and then releases it.
	waitFor(t, func() bool { return len(b.service.buffers.large) == 1 })
	cancel()
	waitFor(t, func() bool { return len(b.service.buffers.large) == 0 })
}

// waitFor polls a condition until it is true.
func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not become true")
		}
	}
}
