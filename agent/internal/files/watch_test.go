package files

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

type watching struct {
	stream grpc.ServerStreamingClient[sandpoolv1.WatchFilesResponse]
	stop   context.CancelFunc
}

// watch starts a watch and returns when the server has confirmed it.
func (b *bench) watch(t *testing.T, path string, recursive bool) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := b.WatchFiles(ctx, &sandpoolv1.WatchFilesRequest{Path: path, Recursive: recursive})
	must(t, err)
	t.Cleanup(cancel)
	first, err := stream.Recv()
	if err != nil || first.GetChange() != sandpoolv1.FileChange_FILE_CHANGE_UNSPECIFIED || first.GetPath() != path {
		t.Fatalf("%v, %v", first, err)
	}
	return &watching{stream, cancel}
}

const (
	created    = sandpoolv1.FileChange_FILE_CHANGE_CREATED
	modified   = sandpoolv1.FileChange_FILE_CHANGE_MODIFIED
	removed    = sandpoolv1.FileChange_FILE_CHANGE_REMOVED
	attributes = sandpoolv1.FileChange_FILE_CHANGE_ATTRIBUTES
)

// want receives messages until the given one, and logs the others.
func (w *watching) want(t *testing.T, change sandpoolv1.FileChange, path string) {
	t.Helper()
	for range 100 {
		got, err := w.stream.Recv()
		if err != nil {
			t.Fatalf("%v, want %v %s", err, change, path)
		}
		if got.GetChange() == change && got.GetPath() == path {
			return
		}
		t.Logf("before %v %s: %v", change, path, got)
	}
	t.Fatalf("no %v %s", change, path)
}

// wantNext receives one message, which must be the given one.
func (w *watching) wantNext(t *testing.T, change sandpoolv1.FileChange, path string) {
	t.Helper()
	if got, err := w.stream.Recv(); err != nil || got.GetChange() != change || got.GetPath() != path {
		t.Fatalf("%v, %v, want %v %s", got, err, change, path)
	}
}

func TestWatchReportsChangesOfDirectory(t *testing.T) {
	b := newBench(t)
	put(t, b.path("inner/file"), "")
	w := b.watch(t, b.dir, false)
	_, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: b.path("new")}, "text")
	must(t, err)
	w.wantNext(t, created, b.path("new"))
	_, err = b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: b.path("new")}, "other")
	must(t, err)
	w.wantNext(t, created, b.path("new"))
	must(t, os.WriteFile(b.path("new"), []byte("x"), 0))
	w.want(t, modified, b.path("new"))
	must(t, os.Chmod(b.path("new"), 0o600))
	w.want(t, attributes, b.path("new"))
	put(t, b.path("inner/unseen"), "")
	must(t, os.Rename(b.path("new"), b.path("moved\n")))
	w.wantNext(t, removed, b.path("new"))
	w.wantNext(t, created, b.path("moved\n"))
	must(t, os.Remove(b.path("moved\n")))
	w.wantNext(t, removed, b.path("moved\n"))
}

func TestRecursiveWatchIncludesNewDirectories(t *testing.T) {
	b := newBench(t)
	put(t, b.path("a/b/file"), "")
	w := b.watch(t, b.dir, true)
	put(t, b.path("a/b/new"), "")
	w.wantNext(t, created, b.path("a/b/new"))
	// These objects are created together, before the agent can watch the new directory.
	put(t, b.path("a/fresh/x/y/deep"), "")
	w.want(t, created, b.path("a/fresh/x/y/deep"))
	put(t, b.path("a/fresh/x/y/later"), "")
	w.want(t, created, b.path("a/fresh/x/y/later"))

	must(t, os.Rename(b.path("a/fresh"), b.path("renamed")))
	w.want(t, removed, b.path("a/fresh"))
	w.want(t, created, b.path("renamed"))
	put(t, b.path("renamed/x/after"), "")
	w.want(t, created, b.path("renamed/x/after"))

	outside := t.TempDir()
	must(t, os.Rename(b.path("renamed"), outside+"/gone"))
	w.want(t, removed, b.path("renamed"))
	put(t, outside+"/gone/x/unseen", "")
	put(t, b.path("seen"), "")
	w.wantNext(t, created, b.path("seen"))
}

func TestWatchOfFileSurvivesReplacement(t *testing.T) {
	b := newBench(t)
	put(t, b.path("file"), "")
	put(t, b.path("other"), "")
	must(t, os.Symlink("file", b.path("link")))
	for _, name := range []string{"file", "link"} {
		w := b.watch(t, b.path(name), true)
		must(t, os.WriteFile(b.path("other"), []byte("x"), 0))
		must(t, os.WriteFile(b.path("file"), []byte("x"), 0))
		w.wantNext(t, modified, b.path(name))
		_, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: b.path("file")}, "replaced")
		must(t, err)
		w.want(t, created, b.path(name))
		must(t, os.WriteFile(b.path("file"), []byte("again"), 0))
		w.want(t, modified, b.path(name))
	}
}

func TestWatchEndsWhenItsDirectoryIsRemoved(t *testing.T) {
	b := newBench(t)
	must(t, os.Mkdir(b.path("directory"), 0o755))
	w := b.watch(t, b.path("directory"), false)
	must(t, os.Remove(b.path("directory")))
	w.want(t, removed, b.path("directory"))
	if got, err := w.stream.Recv(); err != io.EOF {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWatchEndsWhenTheAgentStops(t *testing.T) {
	b := newBench(t)
	w := b.watch(t, b.dir, false)
	close(b.stopping)
	if got, err := w.stream.Recv(); err != io.EOF {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWatchFilesLimitsTheNumberOfWatches(t *testing.T) {
	b := newBench(t)
	var last *watching
	for range maxWatches {
		last = b.watch(t, b.dir, false)
	}
	startWatch := func() error {
		stream, err := b.WatchFiles(t.Context(), &sandpoolv1.WatchFilesRequest{Path: b.dir})
		must(t, err)
		_, err = stream.Recv()
		return err
	}
	wantError(t, startWatch(), codes.ResourceExhausted, reasonWatchLimit, "")
	last.stop()
	waitFor(t, func() bool { return len(b.service.watches) < maxWatches })
	b.watch(t, b.dir, false)
}

func TestWatchReportsOverflow(t *testing.T) {
	b := newBench(t)
	w := b.watch(t, b.dir, false)
	// More changes than the kernel and the stream buffer, while the client does not read.
	for i := range 60_000 {
		file, err := os.Create(b.path(fmt.Sprint(i % 2)))
		must(t, err)
		file.Close()
		must(t, os.Remove(b.path(fmt.Sprint(i%2))))
	}
	for {
		got, err := w.stream.Recv()
		must(t, err)
		if got.GetChange() == sandpoolv1.FileChange_FILE_CHANGE_OVERFLOW {
			if got.GetPath() != b.dir {
				t.Error(got)
			}
			return
		}
	}
}

func TestWatchFilesRejectsMissingPath(t *testing.T) {
	b := newBench(t)
	stream, err := b.WatchFiles(t.Context(), &sandpoolv1.WatchFilesRequest{Path: b.path("none")})
	must(t, err)
	_, err = stream.Recv()
	wantError(t, err, codes.NotFound, reasonNotFound, b.path("none"))
	if len(b.service.watches) != 0 {
		t.Error("the failed watch is still counted")
	}
}
