package files

import (
	"context"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"golang.org/x/sys/unix"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

func ownerOf(t *testing.T, path string) (uid, gid uint32, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	return stat.Uid, stat.Gid, os.FileMode(stat.Mode & permissionBits)
}

func wantOwner(t *testing.T, path string, uid, gid uint32, mode os.FileMode) {
	t.Helper()
	if u, g, m := ownerOf(t, path); u != uid || g != gid || m != mode {
		t.Errorf("%s: %d:%d %o, want %d:%d %o", path, u, g, m, uid, gid, mode)
	}
}

func TestWriteFileSetsOwnerAndMode(t *testing.T) {
	b := newBench(t)
	path := b.path("a", "b", "file")
	info, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: path}, "one", " two")
	must(t, err)
	wantContent(t, path, "one two")
	wantOwner(t, path, 1000, 1001, 0o644)
	wantOwner(t, b.path("a"), 1000, 1001, 0o755)
	wantNames(t, b.path("a", "b"), "file")
	if info.GetPath() != path || info.GetSize() != 7 || info.GetUser() != "app" || info.GetGroup() != "group" || info.GetMode() != 0o644 {
		t.Error(info)
	}

	// A replaced file keeps its mode and owner unless the request sets them.
	must(t, os.Chown(path, 5, 6))
	must(t, os.Chmod(path, 0o600))
	_, err = b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: path}, "new")
	must(t, err)
	wantContent(t, path, "new")
	wantOwner(t, path, 5, 6, 0o600)
	_, err = b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: path, Mode: proto.Uint32(0o4755), Owner: "root:extra"})
	must(t, err)
	wantContent(t, path, "")
	wantOwner(t, path, 0, 44, 0o4755)

	_, err = b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: path, Owner: "nobody-knows"}, "x")
	wantError(t, err, codes.InvalidArgument, reasonUserUnknown, "target.owner")
}

func TestWriteModesReplaceCreateAndAppend(t *testing.T) {
	b := newBench(t)
	path := b.path("file")
	create := &sandpoolv1.WriteFileTarget{Path: path, WriteMode: sandpoolv1.WriteMode_WRITE_MODE_CREATE}
	appending := &sandpoolv1.WriteFileTarget{Path: path, WriteMode: sandpoolv1.WriteMode_WRITE_MODE_APPEND, Mode: proto.Uint32(0o777)}
	_, err := b.write(t.Context(), create, "one")
	must(t, err)
	_, err = b.write(t.Context(), create, "two")
	wantError(t, err, codes.AlreadyExists, reasonExists, path)
	must(t, os.Chmod(path, 0o640))
	info, err := b.write(t.Context(), appending, " and", " more")
	must(t, err)
	wantContent(t, path, "one and more")
	wantOwner(t, path, 1000, 1001, 0o640)
	if info.GetSize() != 12 {
		t.Error(info)
	}
	must(t, os.Remove(path))
	_, err = b.write(t.Context(), appending, "made")
	must(t, err)
	wantContent(t, path, "made")
	wantNames(t, b.dir, "file")
}

func TestCreateDoesNotReplaceAFileCreatedDuringTheUpload(t *testing.T) {
	b := newBench(t)
	path := b.path("file")
	target := &sandpoolv1.WriteFileTarget{Path: path, WriteMode: sandpoolv1.WriteMode_WRITE_MODE_CREATE, UploadId: "u"}
	_, err := b.PutFile(t.Context(), &sandpoolv1.PutFileRequest{Target: target, Data: []byte("mine"), More: true})
	must(t, err)
	put(t, path, "theirs")
	target.Offset = 4
	_, err = b.PutFile(t.Context(), &sandpoolv1.PutFileRequest{Target: target})
	wantError(t, err, codes.AlreadyExists, reasonExists, path)
	wantContent(t, path, "theirs")
}

func TestWriteFileFollowsSymbolicLinks(t *testing.T) {
	b := newBench(t)
	put(t, b.path("real", "file"), "old")
	must(t, os.Symlink("real/../real/file", b.path("link")))
	must(t, os.Symlink(b.path("real"), b.path("directory")))
	must(t, os.Symlink("missing", b.path("dangling")))
	for name, real := range map[string]string{"link": "real/file", "directory/file": "real/file", "dangling": "missing", "directory/new": "real/new"} {
		_, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: b.path(name)}, name)
		must(t, err)
		wantContent(t, b.path(real), name)
	}
	if target, err := os.Readlink(b.path("link")); err != nil || target != "real/../real/file" {
		t.Errorf("the link became %q, %v", target, err)
	}
}

func TestWriteFileRejectsOtherObjects(t *testing.T) {
	b := newBench(t)
	put(t, b.path("file"), "x")
	must(t, os.Mkdir(b.path("directory"), 0o755))
	must(t, unix.Mkfifo(b.path("pipe"), 0o666))
	must(t, os.Symlink("/proc/sys/kernel/hostname", b.path("planted")))
	must(t, os.Symlink("/sys", b.path("sys")))
	for path, reason := range map[string]string{
		b.path("directory"):       reasonIsDirectory,
		"/":                       reasonIsDirectory,
		b.path("pipe"):            reasonNotFile,
		"/dev/null":               reasonNotFile,
		b.path("file", "x"):       reasonNotDirectory,
		b.path("planted"):         reasonNotPermitted,
		b.path("sys", "x"):        reasonNotPermitted,
		b.path("sys", "x", "y"):   reasonNotPermitted,
		"/proc/sysrq-trigger":     reasonNotPermitted,
		"/proc/self/fd/1":         reasonNotPermitted,
		"/proc/self/oom_adj":      reasonNotPermitted,
		"/proc/self/cwd/whatever": reasonNotPermitted,
	} {
		_, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: path}, "x")
		wantError(t, err, codes.FailedPrecondition, reason, path)
	}
	_, err := b.PutFile(t.Context(), &sandpoolv1.PutFileRequest{})
	wantError(t, err, codes.InvalidArgument, reasonInvalidField, "target")
}

func TestBrokenUploadLeavesNoFile(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := b.WriteFile(ctx)
	must(t, err)
	target := &sandpoolv1.WriteFileTarget{Path: b.path("directory", "file")}
	must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: &sandpoolv1.WriteFileRequest_Target{Target: target}}))
	data := &sandpoolv1.WriteFileRequest_Data{Data: make([]byte, 1<<20)}
	for range 16 { // More than is in transit at once, so a part of it has been written.
		must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: data}))
	}
	wantNames(t, b.dir)
	before := openFiles(t)
	cancel()
	waitFor(t, func() bool { return openFiles(t) < before })
	wantNames(t, b.dir)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestWriteFileRejectsSizeMismatch(t *testing.T) {
	b := newBench(t)
	path := b.path("file")
	target := func(size int64) *sandpoolv1.WriteFileTarget {
		return &sandpoolv1.WriteFileTarget{Path: path, Size: proto.Int64(size)}
	}
	_, err := b.write(t.Context(), target(4), "123")
	wantError(t, err, codes.FailedPrecondition, reasonSizeMismatch, path)
	_, err = b.write(t.Context(), target(2), "123")
	wantError(t, err, codes.FailedPrecondition, reasonSizeMismatch, path)
	wantMissing(t, path)
	_, err = b.write(t.Context(), target(3), "123")
	must(t, err)
	wantContent(t, path, "123")
}

func TestWriteFileOverwritesMountedFile(t *testing.T) {
	b := newBench(t)
	put(t, b.path("inner"), "a longer text")
	put(t, b.path("mounted"), "")
	must(t, unix.Mount(b.path("inner"), b.path("mounted"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(b.path("mounted"), unix.MNT_DETACH)) })
	_, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: b.path("mounted"), Mode: proto.Uint32(0o600)}, "new")
	must(t, err)
	wantContent(t, b.path("inner"), "new")
	wantOwner(t, b.path("inner"), 0, 0, 0o600)
	wantNames(t, b.dir, "inner", "mounted")
}

// mountSmall mounts a file system of a few pages.
func mountSmall(t *testing.T, path string) {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
	must(t, unix.Mount("tmpfs", path, "tmpfs", 0, "size=64k,mode=755"))
	t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
}

func TestWriteFileReportsFullDisk(t *testing.T) {
	b := newBench(t)
	path := b.path("small", "file")
	mountSmall(t, b.path("small"))
	put(t, path, "kept")
	large := strings.Repeat("x", 1<<20)
	for _, mode := range []sandpoolv1.WriteMode{sandpoolv1.WriteMode_WRITE_MODE_REPLACE, sandpoolv1.WriteMode_WRITE_MODE_APPEND} {
		_, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: path, WriteMode: mode}, large)
		wantError(t, err, codes.ResourceExhausted, reasonDiskFull, path)
		wantContent(t, path, "kept")
	}
	// The upload fits, but not twice, so the appended part must be removed again.
	_, err := b.write(t.Context(), &sandpoolv1.WriteFileTarget{
		Path: path, WriteMode: sandpoolv1.WriteMode_WRITE_MODE_APPEND,
	}, large[:40<<10])
	wantError(t, err, codes.ResourceExhausted, reasonDiskFull, path)
	wantContent(t, path, "kept")
	wantNames(t, b.path("small"), "file")
	_, err = b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: path}, large[:40<<10])
	must(t, err)
	wantContent(t, path, large[:40<<10])
}

func TestUploadResumesAfterBrokenCall(t *testing.T) {
	b := newBench(t)
	target := &sandpoolv1.WriteFileTarget{Path: b.path("file"), UploadId: "u", Size: proto.Int64(6)}
	get := &sandpoolv1.GetUploadRequest{UploadId: "u"}
	_, err := b.GetUpload(t.Context(), get)
	wantError(t, err, codes.NotFound, reasonUploadNotFound, "u")

	ctx, cancel := context.WithCancel(t.Context())
	stream, err := b.WriteFile(ctx)
	must(t, err)
	must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: &sandpoolv1.WriteFileRequest_Target{Target: target}}))
	must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: &sandpoolv1.WriteFileRequest_Data{Data: []byte("abcd")}}))
	waitFor(t, func() bool {
		state, err := b.GetUpload(t.Context(), get)
		return err == nil && state.GetReceivedBytes() == 4
	})
	cancel()
	state, err := b.GetUpload(t.Context(), get)
	if err != nil || state.GetPath() != b.path("file") || time.Until(state.GetExpireTime().AsTime()).Round(time.Minute) != time.Hour {
		t.Errorf("%v, %v", state, err)
	}
	wantNames(t, b.dir)

	target.Offset = 5
	_, err = b.write(t.Context(), target, "f")
	wantError(t, err, codes.OutOfRange, reasonOffsetOutOfRange, b.path("file"))
	_, err = b.write(t.Context(), &sandpoolv1.WriteFileTarget{Path: b.path("other"), UploadId: "u"}, "x")
	wantError(t, err, codes.FailedPrecondition, reasonUploadConflict, "u")
	target.Offset = 4
	_, err = b.write(t.Context(), target, "e")
	wantError(t, err, codes.FailedPrecondition, reasonSizeMismatch, b.path("file"))
	target.Offset = 2
	_, err = b.write(t.Context(), target, "CDEF")
	must(t, err)
	wantContent(t, b.path("file"), "abCDEF")
	_, err = b.GetUpload(t.Context(), get)
	wantError(t, err, codes.NotFound, reasonUploadNotFound, "u")
}

func TestPutFileAcceptsRepeatedParts(t *testing.T) {
	b := newBench(t)
	target := &sandpoolv1.WriteFileTarget{Path: b.path("file"), UploadId: "u"}
	for _, part := range []struct {
		offset, received int64
		data             string
	}{{0, 3, "abc"}, {3, 6, "def"}, {3, 6, "DEF"}} { // The second part is repeated, as after a lost response.
		target.Offset = part.offset
		response, err := b.PutFile(t.Context(), &sandpoolv1.PutFileRequest{Target: target, Data: []byte(part.data), More: true})
		if err != nil || response.GetReceivedBytes() != part.received || response.GetFile() != nil {
			t.Errorf("%v: %v, %v", part, response, err)
		}
	}
	target.Offset = 6
	response, err := b.PutFile(t.Context(), &sandpoolv1.PutFileRequest{Target: target, Data: []byte("!")})
	if err != nil || response.GetReceivedBytes() != 7 || response.GetFile().GetSize() != 7 {
		t.Errorf("%v, %v", response, err)
	}
	wantContent(t, b.path("file"), "abcDEF!")
}

func writeText(call *uploadCall, text string) error {
	return call.write(int64(len(text)), slices.Values([][]byte{[]byte(text)}))
}

func TestLastCallOwnsTheUpload(t *testing.T) {
	b := newBench(t)
	target := &sandpoolv1.WriteFileTarget{Path: b.path("file"), UploadId: "u"}
	stale, err := b.service.openUpload(target)
	must(t, err)
	must(t, writeText(stale, "abc"))
	target.Offset = 3
	current, err := b.service.openUpload(target)
	must(t, err)
	wantError(t, writeText(stale, "x"), codes.FailedPrecondition, reasonUploadConflict, "u")
	_, err = stale.finish()
	wantError(t, err, codes.FailedPrecondition, reasonUploadConflict, "u")
	stale.release()
	must(t, writeText(current, "d"))
	_, err = current.finish()
	must(t, err)
	wantContent(t, b.path("file"), "abcd")
}

func TestUploadExpires(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	b.service.uploads.now = func() time.Time { return now }
	call, err := b.service.openUpload(&sandpoolv1.WriteFileTarget{Path: b.path("file"), UploadId: "u"})
	must(t, err)
	must(t, writeText(call, "abc"))
	now = now.Add(uploadTime - time.Second)
	b.service.uploads.expire(call.upload)
	must(t, writeText(call, "d"))
	now = now.Add(uploadTime)
	before := openFiles(t)
	b.service.uploads.expire(call.upload)
	if openFiles(t) != before-1 {
		t.Error("the received bytes were not discarded")
	}
	wantError(t, writeText(call, "e"), codes.NotFound, reasonUploadNotFound, "u")
	_, err = b.GetUpload(t.Context(), &sandpoolv1.GetUploadRequest{UploadId: "u"})
	wantError(t, err, codes.NotFound, reasonUploadNotFound, "u")
}

func TestNumberOfUploadsIsLimited(t *testing.T) {
	b := newBench(t)
	for i := range maxUploads {
		_, err := b.PutFile(t.Context(), &sandpoolv1.PutFileRequest{
			Target: &sandpoolv1.WriteFileTarget{Path: b.path("file"), UploadId: "u" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)}, More: true,
		})
		must(t, err)
	}
	_, err := b.PutFile(t.Context(), &sandpoolv1.PutFileRequest{
		Target: &sandpoolv1.WriteFileTarget{Path: b.path("file"), UploadId: "one-more"}, More: true,
	})
	wantError(t, err, codes.ResourceExhausted, reasonUploadLimit, "")
}

func TestScratchWorksWithoutUnnamedFiles(t *testing.T) {
	dir := t.TempDir()
	directory, err := unix.Open(dir, openPath|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(directory)
	put(t, dir+"/file", "old")
	for _, replace := range []bool{false, true} {
		scratch, err := newNamedScratch(directory)
		must(t, err)
		must(t, scratch.write([]byte("new"), 0))
		err = scratch.publish(&location{directory, "file"}, replace)
		scratch.close()
		if replace != (err == nil) || !replace && err != unix.EEXIST {
			t.Errorf("replace %v: %v", replace, err)
		}
		wantNames(t, dir, "file")
	}
	wantContent(t, dir+"/file", "new")
}

func TestWriteFileRejectsTargetAfterContent(t *testing.T) {
	b := newBench(t)
	stream, err := b.WriteFile(t.Context())
	must(t, err)
	target := &sandpoolv1.WriteFileRequest_Target{Target: &sandpoolv1.WriteFileTarget{Path: b.path("file")}}
	must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: target}))
	must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: &sandpoolv1.WriteFileRequest_Data{}}))
	must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: &sandpoolv1.WriteFileRequest_Data{Data: []byte("x")}}))
	must(t, stream.Send(&sandpoolv1.WriteFileRequest{Part: target}))
	_, err = stream.CloseAndRecv()
	wantError(t, err, codes.InvalidArgument, reasonInvalidField, "target")
	wantNames(t, b.dir)
}

func TestContentHeadRecognizesContentMessages(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		want int
	}{
		"content":           {[]byte{0x12, 3, 'a', 'b', 'c'}, 2},
		"no content":        {[]byte{0x12, 0}, 2},
		"nothing":           {nil, 0},
		"too little":        {[]byte{0x12, 4, 'a', 'b', 'c'}, 0},
		"more after it":     {[]byte{0x12, 2, 'a', 'b', 'c'}, 0},
		"another field":     {[]byte{0x0a, 3, 'a', 'b', 'c'}, 0},
		"a number":          {[]byte{0x10, 3}, 0},
		"half a length":     {[]byte{0x12, 0x80}, 0},
		"an endless length": {[]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 0},
	} {
		for split := range len(test.data) + 1 {
			buffers := mem.BufferSlice{mem.SliceBuffer(test.data[:split]), mem.SliceBuffer(test.data[split:])}
			if got := contentHead(buffers); got != test.want {
				t.Errorf("%s, split at %d: %d, want %d", name, split, got, test.want)
			}
			p := part{message: &sandpoolv1.WriteFileRequest{}}
			if err := p.decode(buffers); err != nil || test.want == 0 {
				continue
			}
			if got := slices.Concat(slices.Collect(p.pieces)...); string(got) != string(test.data[2:]) || p.size() != int64(len(got)) {
				t.Errorf("%s, split at %d: %q of size %d", name, split, got, p.size())
			}
		}
	}
}
