package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

func TestStatFileDescribesPaths(t *testing.T) {
	b := newBench(t)
	put(t, b.path("file"), "text")
	must(t, os.Chmod(b.path("file"), 0o640))
	must(t, os.Chown(b.path("file"), 1000, 4242))
	must(t, os.Chtimes(b.path("file"), time.Time{}, time.Unix(1234, 5678)))
	must(t, os.Symlink("file", b.path("link")))
	must(t, unix.Mkfifo(b.path("pipe"), 0o600))
	for _, test := range []struct {
		name   string
		follow bool
		kind   sandpoolv1.FileType
		size   int64
		target string
	}{
		{"file", false, sandpoolv1.FileType_FILE_TYPE_FILE, 4, ""},
		{"link", false, sandpoolv1.FileType_FILE_TYPE_SYMLINK, 0, "file"},
		{"link", true, sandpoolv1.FileType_FILE_TYPE_FILE, 4, ""},
		{"pipe", false, sandpoolv1.FileType_FILE_TYPE_OTHER, 0, ""},
		{".", false, sandpoolv1.FileType_FILE_TYPE_DIRECTORY, 0, ""},
	} {
		response, err := b.StatFile(t.Context(), &sandpoolv1.StatFileRequest{Path: b.path(test.name), FollowSymlinks: test.follow})
		info := response.GetFile()
		if err != nil || info.GetType() != test.kind || info.GetSize() != test.size || info.GetLinkTarget() != test.target {
			t.Errorf("%v: %v, %v", test, info, err)
		}
	}
	// The path is cleaned first, so directories in it that do not exist do not matter.
	response, err := b.StatFile(t.Context(), &sandpoolv1.StatFileRequest{Path: b.dir + "//none/.././file/"})
	info := response.GetFile()
	if err != nil || info.GetPath() != b.path("file") || info.GetMode() != 0o640 || info.GetUid() != 1000 || info.GetGid() != 4242 ||
		info.GetUser() != "app" || info.GetGroup() != "" || !info.GetModifyTime().AsTime().Equal(time.Unix(1234, 5678)) {
		t.Errorf("%v, %v", info, err)
	}
	if response, err := b.StatFile(t.Context(), &sandpoolv1.StatFileRequest{Path: "/../.."}); err != nil || response.GetFile().GetPath() != "/" {
		t.Errorf("%v, %v", response, err)
	}
	for _, wrong := range []string{"", "relative", "/nul\x00"} {
		_, err := b.StatFile(t.Context(), &sandpoolv1.StatFileRequest{Path: wrong})
		wantError(t, err, codes.InvalidArgument, reasonPathInvalid, "path")
	}
}

func TestMakeDirectoryCreatesParents(t *testing.T) {
	b := newBench(t)
	response, err := b.MakeDirectory(t.Context(), &sandpoolv1.MakeDirectoryRequest{
		Path: b.path("a", "b"), Mode: proto.Uint32(0o2770), Owner: "7:8",
	})
	must(t, err)
	if response.GetFile().GetMode() != 0o2770 || response.GetFile().GetUid() != 7 {
		t.Error(response)
	}
	wantOwner(t, b.path("a"), 7, 8, 0o2770)
	wantOwner(t, b.path("a", "b"), 7, 8, 0o2770)
	response, err = b.MakeDirectory(t.Context(), &sandpoolv1.MakeDirectoryRequest{Path: b.path("a")})
	must(t, err)
	if response.GetFile().GetMode() != 0o2770 {
		t.Errorf("an existing directory was changed: %v", response)
	}
	_, err = b.MakeDirectory(t.Context(), &sandpoolv1.MakeDirectoryRequest{Path: "/"})
	must(t, err)
	must(t, os.Symlink("a", b.path("link")))
	_, err = b.MakeDirectory(t.Context(), &sandpoolv1.MakeDirectoryRequest{Path: b.path("link", "c")})
	must(t, err)
	wantOwner(t, b.path("a", "c"), 1000, 1001, 0o755)
	put(t, b.path("file"), "")
	_, err = b.MakeDirectory(t.Context(), &sandpoolv1.MakeDirectoryRequest{Path: b.path("file")})
	wantError(t, err, codes.AlreadyExists, reasonExists, b.path("file"))
	_, err = b.MakeDirectory(t.Context(), &sandpoolv1.MakeDirectoryRequest{Path: "/proc/x"})
	wantError(t, err, codes.FailedPrecondition, reasonNotPermitted, "/proc/x")
}

func TestMoveFileRespectsOverwrite(t *testing.T) {
	b := newBench(t)
	put(t, b.path("file"), "text")
	move := func(source, destination string, overwrite bool) error {
		_, err := b.MoveFile(t.Context(), &sandpoolv1.MoveFileRequest{
			Source: b.path(source), Destination: b.path(destination), Overwrite: overwrite,
		})
		return err
	}
	must(t, move("file", "new/directory/file", false))
	wantMissing(t, b.path("file"))
	wantContent(t, b.path("new/directory/file"), "text")
	wantOwner(t, b.path("new"), 1000, 1001, 0o755)

	put(t, b.path("other"), "other")
	wantError(t, move("other", "new/directory/file", false), codes.AlreadyExists, reasonExists, b.path("new/directory/file"))
	must(t, move("other", "new/directory/file", true))
	wantContent(t, b.path("new/directory/file"), "other")

	must(t, os.Mkdir(b.path("empty"), 0o755))
	wantError(t, move("new", "empty", true), codes.AlreadyExists, reasonExists, b.path("empty"))
	wantError(t, move("new/directory/file", "empty", true), codes.AlreadyExists, reasonExists, b.path("empty"))
	wantError(t, move("new", "new/inner", false), codes.InvalidArgument, reasonPathInvalid, "path")
	wantError(t, move("none", "x/y", false), codes.NotFound, reasonNotFound, b.path("none"))
	wantMissing(t, b.path("x"))
	must(t, move("new", "empty/moved", false))
	wantContent(t, b.path("empty/moved/directory/file"), "other")

	must(t, os.Symlink("nowhere", b.path("link")))
	must(t, move("link", "link2", false))
	if target, err := os.Readlink(b.path("link2")); err != nil || target != "nowhere" {
		t.Errorf("%q, %v", target, err)
	}
}

// tree creates a directory with one object of each type.
func tree(t *testing.T, dir string) {
	t.Helper()
	put(t, dir+"/file", "text")
	must(t, os.Chmod(dir+"/file", 0o4751))
	must(t, os.Chown(dir+"/file", 11, 12))
	must(t, os.Chmod(dir+"/file", 0o4751|os.ModeSetuid))
	must(t, os.Chtimes(dir+"/file", time.Time{}, time.Unix(1234, 5678)))
	put(t, dir+"/inner/odd\nname", "odd")
	must(t, os.Chmod(dir+"/inner", 0o700))
	must(t, os.Symlink("/etc", dir+"/inner/link"))
	must(t, os.Lchown(dir+"/inner/link", 13, 14))
	must(t, unix.Mkfifo(dir+"/inner/pipe", 0o620))
	must(t, os.Chmod(dir+"/inner/pipe", 0o620))
	must(t, os.Mkdir(dir+"/empty", 0o755))
}

func wantTree(t *testing.T, dir string) {
	t.Helper()
	wantNames(t, dir, "empty", "file", "inner")
	wantNames(t, dir+"/inner", "link", "odd\nname", "pipe")
	wantContent(t, dir+"/file", "text")
	wantOwner(t, dir+"/file", 11, 12, 0o4751)
	if info, err := os.Stat(dir + "/file"); err != nil || !info.ModTime().Equal(time.Unix(1234, 5678)) {
		t.Errorf("%v, %v", info, err)
	}
	wantContent(t, dir+"/inner/odd\nname", "odd")
	wantOwner(t, dir+"/inner", 0, 0, 0o700)
	wantOwner(t, dir+"/inner/link", 13, 14, 0o777)
	if target, err := os.Readlink(dir + "/inner/link"); err != nil || target != "/etc" {
		t.Errorf("%q, %v", target, err)
	}
	if info, err := os.Lstat(dir + "/inner/pipe"); err != nil || info.Mode() != os.ModeNamedPipe|0o620 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestCopyFileCopiesTrees(t *testing.T) {
	b := newBench(t)
	tree(t, b.path("tree"))
	duplicate := func(source, destination string, overwrite bool) error {
		_, err := b.CopyFile(t.Context(), &sandpoolv1.CopyFileRequest{
			Source: b.path(source), Destination: b.path(destination), Overwrite: overwrite,
		})
		return err
	}
	must(t, duplicate("tree", "parent/copy", false))
	wantTree(t, b.path("tree"))
	wantTree(t, b.path("parent/copy"))
	wantNames(t, b.path("parent"), "copy")

	wantError(t, duplicate("tree", "parent/copy", true), codes.AlreadyExists, reasonExists, b.path("parent/copy"))
	wantError(t, duplicate("tree", "tree/inner/copy", false), codes.InvalidArgument, reasonPathInvalid, "path")
	wantNames(t, b.path("tree/inner"), "link", "odd\nname", "pipe")
	put(t, b.path("large"), strings.Repeat("0123456789", 200_000))
	must(t, duplicate("large", "file", false))
	wantError(t, duplicate("tree/file", "file", false), codes.AlreadyExists, reasonExists, b.path("file"))
	must(t, duplicate("large", "tree/inner/link", true))
	wantContent(t, b.path("tree/inner/link"), strings.Repeat("0123456789", 200_000))
	wantError(t, duplicate("none", "x", false), codes.NotFound, reasonNotFound, b.path("none"))
}

func TestCopyFileCopiesGeneratedFiles(t *testing.T) {
	b := newBench(t)
	_, err := b.CopyFile(t.Context(), &sandpoolv1.CopyFileRequest{Source: "/proc/version", Destination: b.path("version")})
	must(t, err)
	want, err := os.ReadFile("/proc/version")
	must(t, err)
	wantContent(t, b.path("version"), string(want))
}

func TestMoveFileCopiesToAnotherFileSystem(t *testing.T) {
	b := newBench(t)
	mountSmall(t, b.path("small"))
	tree(t, b.path("tree"))
	request := &sandpoolv1.MoveFileRequest{Source: b.path("tree"), Destination: b.path("small", "moved")}
	_, err := b.MoveFile(t.Context(), request)
	must(t, err)
	wantTree(t, b.path("small", "moved"))
	wantNames(t, b.dir, "small")

	// A file that does not fit remains at its source, and no part of it remains at the destination.
	put(t, b.path("large", "file"), strings.Repeat("x", 1<<20))
	_, err = b.MoveFile(t.Context(), &sandpoolv1.MoveFileRequest{Source: b.path("large"), Destination: b.path("small", "large")})
	wantError(t, err, codes.ResourceExhausted, reasonDiskFull, b.path("large", "file"))
	wantNames(t, b.path("small"), "moved")
	wantContent(t, b.path("large", "file"), strings.Repeat("x", 1<<20))
}

func TestRemoveFileRemovesTrees(t *testing.T) {
	b := newBench(t)
	tree(t, b.path("tree"))
	put(t, b.path("outside", "file"), "kept")
	must(t, os.Symlink(b.path("outside"), b.path("tree", "leads-out")))
	remove := func(path string, recursive, missing bool) error {
		_, err := b.RemoveFile(t.Context(), &sandpoolv1.RemoveFileRequest{Path: path, Recursive: recursive, MissingOk: missing})
		return err
	}
	must(t, remove(b.path("tree", "file"), false, false))
	must(t, remove(b.path("tree", "inner", "pipe"), false, false))
	must(t, remove(b.path("tree", "empty"), false, false))
	wantError(t, remove(b.path("tree"), false, false), codes.FailedPrecondition, reasonNotEmpty, b.path("tree"))
	must(t, remove(b.path("tree"), true, false))
	wantNames(t, b.dir, "outside")
	wantContent(t, b.path("outside", "file"), "kept")
	wantError(t, remove(b.path("none"), true, false), codes.NotFound, reasonNotFound, b.path("none"))
	must(t, remove(b.path("none"), true, true))
	must(t, remove(b.path("none", "none"), false, true))
	for _, path := range []string{"/", "/proc", "/proc/1", "/sys/kernel"} {
		wantError(t, remove(path, true, true), codes.FailedPrecondition, reasonNotPermitted, "")
	}
}

// deep creates nested directories that are deeper than a path can name.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, openPath|unix.O_DIRECTORY, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, "directory", 0o755))
		next, err := unix.Openat(fd, "directory", openPath|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
}

func TestRecursiveOperationsLimitDepth(t *testing.T) {
	b := newBench(t)
	deep(t, b.dir, maxDepth)
	root := b.path("directory")
	if _, err := b.list(t, root, 64, 1000); err != nil {
		t.Error(err)
	}
	if response, err := b.GlobFiles(t.Context(), &sandpoolv1.GlobFilesRequest{Pattern: root + "/**", PageSize: 1000}); err != nil {
		t.Error(err)
	} else if len(response.GetFiles()) != (maxListedPath-1-len(root))/len("/directory") {
		t.Errorf("%d paths", len(response.GetFiles()))
	}
	_, err := b.CopyFile(t.Context(), &sandpoolv1.CopyFileRequest{Source: root, Destination: b.path("copy")})
	must(t, err)
	_, err = b.RemoveFile(t.Context(), &sandpoolv1.RemoveFileRequest{Path: root, Recursive: true})
	must(t, err)
	wantNames(t, b.dir, "copy")

	deep(t, b.dir, maxDepth+2)
	_, err = b.CopyFile(t.Context(), &sandpoolv1.CopyFileRequest{Source: root, Destination: b.path("copy2")})
	wantError(t, err, codes.FailedPrecondition, reasonNotPermitted, "")
	wantNames(t, b.dir, "copy", "directory")
	_, err = b.RemoveFile(t.Context(), &sandpoolv1.RemoveFileRequest{Path: root, Recursive: true})
	wantError(t, err, codes.FailedPrecondition, reasonNotPermitted, "")
}

// list lists a directory to its end, page by page.
func (b *bench) list(t *testing.T, dir string, depth, pageSize int32) ([]string, error) {
	t.Helper()
	var names []string
	for token := ""; ; {
		response, err := b.ListDirectory(t.Context(), &sandpoolv1.ListDirectoryRequest{
			Path: dir, Depth: depth, PageSize: pageSize, PageToken: token,
		})
		if err != nil {
			return names, err
		}
		for _, info := range response.GetFiles() {
			relative, err := filepath.Rel(dir, info.GetPath())
			must(t, err)
			names = append(names, relative)
		}
		if token = response.GetNextPageToken(); token == "" {
			return names, nil
		}
		if len(response.GetFiles()) != int(pageSize) {
			t.Fatalf("a page has %d entries", len(response.GetFiles()))
		}
	}
}

func TestListDirectoryReturnsSortedPages(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"b/z", "b/a/deep/er", "b.txt", "a", "c\nd", "b/é", "e\xff/x"} {
		put(t, b.path(name), "")
	}
	must(t, os.Symlink("b", b.path("link")))
	for depth, want := range map[int32][]string{
		0: {"a", "b", "b.txt", "c\nd", "e\uFFFD", "link"},
		1: {"a", "b", "b.txt", "c\nd", "e\uFFFD", "link"},
		2: {"a", "b", "b/a", "b/z", "b/é", "b.txt", "c\nd", "e\uFFFD", "e\uFFFD/x", "link"},
		9: {"a", "b", "b/a", "b/a/deep", "b/a/deep/er", "b/z", "b/é", "b.txt", "c\nd", "e\uFFFD", "e\uFFFD/x", "link"},
	} {
		for _, size := range []int32{1, 2, 3, 1000} {
			if got, err := b.list(t, b.dir, depth, size); err != nil || !slices.Equal(got, want) {
				t.Errorf("depth %d, pages of %d: %q, %v", depth, size, got, err)
			}
		}
	}
	if got, err := b.list(t, b.path("link"), 1, 100); err != nil || !slices.Equal(got, []string{"a", "z", "é"}) {
		t.Errorf("%q, %v", got, err)
	}
	_, err := b.list(t, b.path("a"), 1, 100)
	wantError(t, err, codes.FailedPrecondition, reasonNotDirectory, b.path("a"))
	_, err = b.list(t, b.path("none"), 1, 100)
	wantError(t, err, codes.NotFound, reasonNotFound, b.path("none"))
}

func TestListDirectoryPagesAreStableWhileTheDirectoryChanges(t *testing.T) {
	b := newBench(t)
	for i := range 10 {
		put(t, b.path("directory", fmt.Sprint(i), "x"), "")
	}
	request := &sandpoolv1.ListDirectoryRequest{Path: b.path("directory"), PageSize: 4}
	first, err := b.ListDirectory(t.Context(), request)
	must(t, err)
	must(t, os.RemoveAll(b.path("directory", "3")))
	must(t, os.RemoveAll(b.path("directory", "5")))
	put(t, b.path("directory", "4a"), "")
	put(t, b.path("directory", "1a"), "")
	request.PageToken = first.GetNextPageToken()
	second, err := b.ListDirectory(t.Context(), request)
	must(t, err)
	var names []string
	for _, info := range second.GetFiles() {
		names = append(names, filepath.Base(info.GetPath()))
	}
	if !slices.Equal(names, []string{"4", "4a", "6", "7"}) {
		t.Error(names)
	}
	request.Path = b.dir
	_, err = b.ListDirectory(t.Context(), request)
	wantError(t, err, codes.InvalidArgument, reasonInvalidField, "page_token")
	for _, token := range []string{"x", "%%%", strings.Repeat("A", 100)} {
		request.PageToken = token
		_, err = b.ListDirectory(t.Context(), request)
		wantError(t, err, codes.InvalidArgument, reasonInvalidField, "page_token")
	}
}

func TestSmallestReadsLargeDirectoriesInParts(t *testing.T) {
	b := newBench(t)
	fd, err := unix.Open(b.dir, openDirectory, 0)
	must(t, err)
	defer unix.Close(fd)
	var want []string
	for i := range 3*orderedNames + 5 {
		name := fmt.Sprintf("%x", (i*7919)%100_003)
		put(t, b.path(name), "")
		want = append(want, name)
	}
	slices.Sort(want)
	if got, err := b.list(t, b.dir, 1, 1000); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d names, %v", len(got), err)
	}
	found, more, err := smallest(t.Context(), fd, want[10], false, 7)
	if err != nil || !more || len(found) != 7 || found[0].name != want[11] || found[6].name != want[17] || cap(found) > 32 {
		t.Errorf("%v, %v, %v", found, more, err)
	}
	found, more, err = smallest(t.Context(), fd, want[len(want)-2], true, 7)
	if err != nil || more || len(found) != 2 {
		t.Errorf("%v, %v, %v", found, more, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := smallest(ctx, fd, "", true, 7); err == nil {
		t.Error("a cancelled call returned no error")
	}
}

func (b *bench) glob(t *testing.T, pattern string, pageSize int32) ([]string, error) {
	t.Helper()
	var names []string
	for token := ""; ; {
		response, err := b.GlobFiles(t.Context(), &sandpoolv1.GlobFilesRequest{Pattern: pattern, PageSize: pageSize, PageToken: token})
		if err != nil {
			return names, err
		}
		for _, info := range response.GetFiles() {
			relative, err := filepath.Rel(b.dir, info.GetPath())
			must(t, err)
			names = append(names, relative)
		}
		if token = response.GetNextPageToken(); token == "" {
			return names, nil
		}
	}
}

func TestGlobFilesReturnsSortedMatches(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a.go", "b.py", "src/c.go", "src/deep/d.go", "src/deep/e.txt", ".hidden/f.go", "set/x1", "set/y2", "set/[z]"} {
		put(t, b.path(name), "")
	}
	must(t, os.Symlink("src", b.path("link")))
	for pattern, want := range map[string][]string{
		"*.go":                    {"a.go"},
		"**/*.go":                 {".hidden/f.go", "a.go", "src/c.go", "src/deep/d.go"},
		"src/**":                  {"src/c.go", "src/deep", "src/deep/d.go", "src/deep/e.txt"},
		"src/**/*.txt":            {"src/deep/e.txt"},
		"*/deep/*":                {"src/deep/d.go", "src/deep/e.txt"},
		"{a,b}.*":                 {"a.go", "b.py"},
		"{src/deep,set}/*[0-9e]*": {"set/x1", "set/y2", "src/deep/e.txt"},
		"set/[xy]?":               {"set/x1", "set/y2"},
		"set/[!x]?":               {"set/y2"},
		"set/\\[z\\]":             {"set/[z]"},
		"src//./c.go":             {"src/c.go"},
		"link/*":                  {"src/../link/c.go", "src/../link/deep"},
		"*/c.go":                  {"src/c.go"},
		"none/*":                  nil,
		"a.go/*":                  nil,
		"?.??":                    {"a.go", "b.py"},
	} {
		for i, name := range want {
			want[i] = filepath.Clean(name)
		}
		for _, size := range []int32{1, 2, 1000} {
			if got, err := b.glob(t, b.dir+"/"+pattern, size); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: %q, %v, want %q", pattern, size, got, err, want)
			}
		}
	}
	for _, pattern := range []string{"relative", "/[", "/{a", "/a/../b", "/" + strings.Repeat("{", 9) + strings.Repeat("}", 9), "/\x00"} {
		_, err := b.glob(t, pattern, 1)
		wantError(t, err, codes.InvalidArgument, reasonPathInvalid, "pattern")
	}
}

func TestRecursiveOperationsSkipPseudoFileSystems(t *testing.T) {
	b := newBench(t)
	got, err := b.glob(t, "/proc*/**/meminfo", 10)
	if err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	response, err := b.GlobFiles(t.Context(), &sandpoolv1.GlobFilesRequest{Pattern: "/proc/mem*"})
	if err != nil || len(response.GetFiles()) == 0 {
		t.Errorf("%v, %v", response, err)
	}
}

func FuzzCleanPath(f *testing.F) {
	for _, seed := range []string{"/", "/a/../..", "//a//b/", "a", "", "/\x00", "/\xff/..", "/a/./b/../c", "/..", "/../../x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := cleanPath("path", text)
		if err != nil {
			wantError(t, err, codes.InvalidArgument, reasonPathInvalid, "path")
			return
		}
		if !strings.HasPrefix(got, "/") || strings.Contains(got, "//") || strings.ContainsRune(got, 0) ||
			slices.Contains(strings.Split(got, "/"), "..") || slices.Contains(strings.Split(got, "/"), ".") ||
			got != "/" && strings.HasSuffix(got, "/") {
			t.Errorf("cleanPath changed %q to %q", text, got)
		}
	})
}
