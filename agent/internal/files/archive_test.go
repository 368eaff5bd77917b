package files

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

func (b *bench) download(t *testing.T, dir string) ([]byte, error) {
	t.Helper()
	stream, err := b.DownloadDirectory(t.Context(), &sandpoolv1.DownloadDirectoryRequest{Path: dir})
	must(t, err)
	var archive bytes.Buffer
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return archive.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		archive.Write(response.GetData())
	}
}

func (b *bench) upload(ctx context.Context, dir, owner string, archive []byte) (*sandpoolv1.UploadDirectoryResponse, error) {
	stream, err := b.UploadDirectory(ctx)
	if err != nil {
		return nil, err
	}
	target := &sandpoolv1.UploadDirectoryTarget{Path: dir, Owner: owner}
	err = stream.Send(&sandpoolv1.UploadDirectoryRequest{Part: &sandpoolv1.UploadDirectoryRequest_Target{Target: target}})
	for part := range slices.Chunk(archive, 1000) {
		if err == nil {
			err = stream.Send(&sandpoolv1.UploadDirectoryRequest{Part: &sandpoolv1.UploadDirectoryRequest_Data{Data: part}})
		}
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	return stream.CloseAndRecv()
}

func archiveOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, header := range headers {
		content := ""
		if header.Typeflag == tar.TypeReg {
			content = "content of " + header.Name
			header.Size = int64(len(content))
		}
		if header.Mode == 0 {
			header.Mode = 0o644
		}
		must(t, w.WriteHeader(&header))
		_, err := w.Write([]byte(content))
		must(t, err)
	}
	must(t, w.Close())
	return archive.Bytes()
}

func TestDownloadedDirectoryCanBeUploaded(t *testing.T) {
	b := newBench(t)
	tree(t, b.path("tree"))
	put(t, b.path("tree/inner/large"), strings.Repeat("0123456789", 100_000))
	must(t, os.Link(b.path("tree/inner/large"), b.path("tree/empty/second")))
	put(t, b.path("tree/inner/"+strings.Repeat("long", 50)+"/"+strings.Repeat("name", 50)), "x")
	put(t, b.path("tree/inner/not\xffutf8"), "x")
	archive, err := b.download(t, b.path("tree"))
	must(t, err)
	entries := 0
	for r := tar.NewReader(bytes.NewReader(archive)); ; entries++ {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		if header.Name == "file" && (header.Uid != 11 || header.Gid != 12 || header.Mode != 0o4751 || !header.ModTime.Equal(time.Unix(1234, 5678))) {
			t.Error(header)
		}
		if strings.HasPrefix(header.Name, "/") || header.Format != tar.FormatPAX && header.Format != tar.FormatUSTAR && header.Format != tar.FormatUSTAR|tar.FormatPAX {
			t.Errorf("%q of format %v", header.Name, header.Format)
		}
	}
	response, err := b.upload(t.Context(), b.path("parent/back"), "", archive)
	must(t, err)
	if response.GetEntries() != int64(entries) || response.GetBytesWritten() != 4+3+1_000_000+1+1 {
		t.Errorf("%v, %d entries", response, entries)
	}
	wantContent(t, b.path("parent/back/inner/large"), strings.Repeat("0123456789", 100_000))
	first, err := os.Stat(b.path("parent/back/inner/large"))
	must(t, err)
	second, err := os.Stat(b.path("parent/back/empty/second"))
	if err != nil || !os.SameFile(first, second) {
		t.Errorf("the hard link was not created as one: %v", err)
	}
	wantContent(t, b.path("parent/back/inner/not\xffutf8"), "x")
	wantContent(t, b.path("parent/back/inner/"+strings.Repeat("long", 50)+"/"+strings.Repeat("name", 50)), "x")
	for _, extra := range []string{"inner/large", "empty/second", "inner/" + strings.Repeat("long", 50), "inner/not\xffutf8"} {
		must(t, os.RemoveAll(b.path("parent/back", extra)))
	}
	wantTree(t, b.path("parent/back"))

	_, err = b.download(t, b.path("tree/file"))
	wantError(t, err, codes.FailedPrecondition, reasonNotDirectory, b.path("tree/file"))
	_, err = b.download(t, b.path("none"))
	wantError(t, err, codes.NotFound, reasonNotFound, b.path("none"))
}

func TestUploadDirectoryWritesOverExistingFiles(t *testing.T) {
	b := newBench(t)
	put(t, b.path("d/file"), "old")
	put(t, b.path("d/other"), "kept")
	put(t, b.path("outside"), "kept")
	must(t, os.Symlink(b.path("outside"), b.path("d/link")))
	_, err := b.upload(t.Context(), b.path("d"), "7:8", archiveOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "./file", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 50},
		tar.Header{Name: "link", Typeflag: tar.TypeReg},
		tar.Header{Name: "made/for/it", Typeflag: tar.TypeReg},
		tar.Header{Name: "again", Typeflag: tar.TypeLink, Linkname: "made/for/it"},
		tar.Header{Name: "made/for/it", Typeflag: tar.TypeLink, Linkname: "again"},
	))
	must(t, err)
	wantContent(t, b.path("d/file"), "content of ./file")
	wantOwner(t, b.path("d/file"), 7, 8, 0o4711)
	wantContent(t, b.path("d/other"), "kept")
	wantContent(t, b.path("d/link"), "content of link")
	wantContent(t, b.path("outside"), "kept")
	wantContent(t, b.path("d/again"), "content of made/for/it")
	wantOwner(t, b.path("d/made"), 7, 8, 0o755)
	wantOwner(t, b.path("d"), 0, 0, 0o755)
	wantNames(t, b.path("d"), "again", "file", "link", "made", "other")
}

func TestUploadDirectoryRejectsHostileArchives(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	link := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
	}
	hard := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
	}
	for name, test := range map[string]struct {
		entries []tar.Header
		reason  string
	}{
		"parent":                         {[]tar.Header{reg("../x")}, reasonArchiveInvalid},
		"parent within the name":         {[]tar.Header{reg("a/../../x")}, reasonArchiveInvalid},
		"absolute":                       {[]tar.Header{reg("/x")}, reasonArchiveInvalid},
		"through its own link":           {[]tar.Header{link("l", "../outside"), reg("l/x")}, reasonArchiveInvalid},
		"directory through its own link": {[]tar.Header{link("l", "../outside"), {Name: "l/x/", Typeflag: tar.TypeDir}}, reasonArchiveInvalid},
		"directory over a link":          {[]tar.Header{link("l", "../outside"), {Name: "l/", Typeflag: tar.TypeDir}}, reasonArchiveInvalid},
		"through a link inside":          {[]tar.Header{{Name: "a/", Typeflag: tar.TypeDir}, link("l", "a"), reg("l/x")}, reasonArchiveInvalid},
		"through an existing link":       {[]tar.Header{reg("planted/x")}, reasonArchiveInvalid},
		"device":                         {[]tar.Header{{Name: "d", Typeflag: tar.TypeBlock}}, reasonArchiveInvalid},
		"character device":               {[]tar.Header{{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}, reasonArchiveInvalid},
		"hard link to parent":            {[]tar.Header{hard("h", "../outside/secret")}, reasonArchiveInvalid},
		"hard link absolute":             {[]tar.Header{hard("h", "/etc/passwd")}, reasonArchiveInvalid},
		"hard link through a link":       {[]tar.Header{hard("h", "planted/secret")}, reasonArchiveInvalid},
		"hard link to a link":            {[]tar.Header{hard("h", "planted")}, reasonArchiveInvalid},
		"hard link to nothing":           {[]tar.Header{hard("h", "none/none")}, reasonArchiveInvalid},
		"hard link to itself":            {[]tar.Header{hard("h", "h")}, reasonArchiveInvalid},
		"owner":                          {[]tar.Header{{Name: "o", Typeflag: tar.TypeReg, Uid: 1 << 40}}, reasonArchiveInvalid},
		"file over a directory":          {[]tar.Header{{Name: "a/", Typeflag: tar.TypeDir}, reg("a")}, reasonIsDirectory},
		"link over a directory":          {[]tar.Header{{Name: "a/", Typeflag: tar.TypeDir}, link("a", "x")}, reasonIsDirectory},
		"directory over a file":          {[]tar.Header{reg("a"), {Name: "a/", Typeflag: tar.TypeDir}}, reasonNotDirectory},
		"in a file":                      {[]tar.Header{reg("a"), reg("a/b")}, reasonNotDirectory},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			put(t, b.path("outside/secret"), "secret")
			must(t, os.Mkdir(b.path("in"), 0o755))
			must(t, os.Symlink("../outside", b.path("in/planted")))
			for i := range test.entries {
				if test.entries[i].Typeflag == tar.TypeDir {
					test.entries[i].Mode = 0o755
				}
			}
			_, err := b.upload(t.Context(), b.path("in"), "", archiveOf(t, test.entries...))
			wantError(t, err, codes.FailedPrecondition, test.reason, "")
			wantNames(t, b.dir, "in", "outside")
			wantNames(t, b.path("outside"), "secret")
			wantContent(t, b.path("outside/secret"), "secret")
			entries, err := os.ReadDir(b.path("in"))
			must(t, err)
			for _, e := range entries {
				if isHidden(e.Name()) {
					t.Errorf("temporary file %s is left", e.Name())
				}
			}
		})
	}
}

func TestUploadDirectoryRejectsBrokenArchives(t *testing.T) {
	b := newBench(t)
	good := archiveOf(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "b", Typeflag: tar.TypeReg})
	for name, archive := range map[string][]byte{
		"text":                     []byte(strings.Repeat("no archive ", 100)),
		"half a header":            good[:200],
		"half a file":              good[:515],
		"half an archive":          good[:1024+100],
		"wrong check sum":          append([]byte{'x'}, good[1:]...),
		"compressed by its header": {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3},
	} {
		_, err := b.upload(t.Context(), b.path("in"), "", archive)
		if err == nil {
			t.Errorf("%s was accepted", name)
			continue
		}
		wantError(t, err, codes.FailedPrecondition, reasonArchiveInvalid, "")
	}
	wantContent(t, b.path("in/a"), "content of a")
	response, err := b.upload(t.Context(), b.path("empty"), "", nil)
	if err != nil || response.GetEntries() != 0 {
		t.Errorf("%v, %v", response, err)
	}
	_, err = b.upload(t.Context(), b.path("in/a"), "", good)
	wantError(t, err, codes.FailedPrecondition, reasonNotDirectory, b.path("in/a"))
	_, err = b.upload(t.Context(), "/proc/sys", "", good)
	wantError(t, err, codes.FailedPrecondition, reasonNotPermitted, "/proc/sys")
}

func TestUploadDirectoryReportsFullDisk(t *testing.T) {
	b := newBench(t)
	mountSmall(t, b.path("small"))
	var headers []tar.Header
	for i := range 100 {
		headers = append(headers, tar.Header{Name: fmt.Sprint("f", i), Typeflag: tar.TypeReg})
	}
	_, err := b.upload(t.Context(), b.path("small"), "", archiveOf(t, headers...))
	wantError(t, err, codes.ResourceExhausted, reasonDiskFull, "")
	wantContent(t, b.path("small/f0"), "content of f0")
}

func FuzzEntryParts(f *testing.F) {
	for _, seed := range []string{"a/b", "/a", "../a", "a/../b", "./a//b/", "", ".", "a\x00", "..."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		parts, err := entryParts(name)
		if err != nil {
			return
		}
		for _, part := range parts {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "/\x00") {
				t.Errorf("%q has the part %q", name, part)
			}
		}
	})
}
