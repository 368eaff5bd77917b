package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

const (
	// Maximum depth of directories that recursive operations follow. Each level holds a file open. No path of at most
	// 4,096 bytes has more than half as many directories.
	maxDepth = 2048
	// Number of bytes of a directory that are read at once.
	direntBytes = 16 << 10
	// Offset of the name in a directory entry of the kernel.
	direntName = 19
)

// entry is an entry of a directory.
type entry struct {
	name string
	// kind is the type, for example DT_DIR, or DT_UNKNOWN if the file system does not report it.
	kind uint8
}

// isDirectory reports whether the entry of an open directory is a directory.
func (e entry) isDirectory(dir int) bool {
	if e.kind != unix.DT_UNKNOWN {
		return e.kind == unix.DT_DIR
	}
	stat, err := lstat(dir, e.name)
	return err == nil && isDirectory(stat)
}

// nextEntries reads some entries of a directory, and none at its end.
func nextEntries(fd int, buffer []byte) ([]entry, error) {
	for {
		var n int
		err := ignoringEINTR(func() (err error) { n, err = unix.Getdents(fd, buffer); return })
		if err != nil || n <= 0 {
			return nil, err
		}
		if entries := parseEntries(buffer[:n]); len(entries) > 0 {
			return entries, nil
		}
	}
}

// parseEntries parses directory entries of the kernel: inode, offset, length of the entry, type, and name terminated by
// NUL.
func parseEntries(data []byte) []entry {
	var entries []entry
	for len(data) > direntName {
		length := int(binary.NativeEndian.Uint16(data[16:]))
		if length <= direntName || length > len(data) {
			break
		}
		name := data[direntName:length]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if text := string(name); text != "." && text != ".." {
			entries = append(entries, entry{text, data[18]})
		}
		data = data[length:]
	}
	return entries
}

// eachEntry calls visit for all entries of an open directory, in no particular order. It reads the directory in parts,
// so its size does not matter.
func eachEntry(fd int, visit func(entry) error) error {
	buffer := make([]byte, direntBytes)
	for {
		entries, err := nextEntries(fd, buffer)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if err := visit(e); err != nil {
				return err
			}
		}
	}
}

// smallest returns the first names of an open directory in byte order, at most limit, that follow the name after,
// including that name if inclusive is set. It reads the complete directory, but holds at most two times limit names in
// memory.
func smallest(ctx context.Context, fd int, after string, inclusive bool, limit int) (found []entry, more bool, err error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, false, err
	}
	byName := func(a, b entry) int { return strings.Compare(a.name, b.name) }
	err = eachEntry(fd, func(e entry) error {
		if e.name < after || e.name == after && !inclusive || more && e.name > found[limit-1].name {
			return nil
		}
		if found = append(found, e); len(found) >= 2*limit {
			slices.SortFunc(found, byName)
			found, more = found[:limit], true
		}
		return contextError(ctx)
	})
	slices.SortFunc(found, byName)
	if len(found) > limit {
		found, more = found[:limit], true
	}
	return found, more, err
}

// RemoveFile implements FileService.
func (s *Service) RemoveFile(ctx context.Context, request *sandpoolv1.RemoveFileRequest) (*sandpoolv1.RemoveFileResponse, error) {
	name, err := cleanPath("path", request.GetPath())
	if err != nil {
		return nil, err
	}
	err = remove(ctx, name, request.GetRecursive())
	if isMissing(err) && request.GetMissingOk() {
		err = nil
	}
	if err != nil {
		return nil, failure(name, err)
	}
	return &sandpoolv1.RemoveFileResponse{}, nil
}

func remove(ctx context.Context, name string, recursive bool) error {
	p, err := search{}.toChange(name)
	if err != nil {
		return err
	}
	defer p.close()
	stat, err := p.stat()
	if err != nil {
		return err
	}
	if p.name == "." {
		return unix.EBUSY
	}
	switch {
	case !isDirectory(stat):
		return unix.Unlinkat(p.dir, p.name, 0)
	case !recursive:
		return unix.Unlinkat(p.dir, p.name, unix.AT_REMOVEDIR)
	}
	return removeTree(ctx, p.dir, p.name, name, 0)
}

// removeTree removes a name in an open directory with all of its contents. It is not an error if contents vanish in
// between. shown is the path for errors.
func removeTree(ctx context.Context, dir int, name, shown string, depth int) error {
	if err := contextError(ctx); err != nil {
		return err
	}
	err := ignoringEINTR(func() error { return unix.Unlinkat(dir, name, 0) })
	// For a directory Linux returns EISDIR, POSIX defines EPERM.
	if err != unix.EISDIR && err != unix.EPERM {
		return at(shown, err)
	}
	if depth > maxDepth {
		return at(shown, errTooDeep)
	}
	fd, openErr := openAt(dir, name, openDirectory, 0)
	if openErr == unix.ENOTDIR {
		return at(shown, err) // The object is a file that cannot be removed.
	}
	if openErr != nil {
		return at(shown, openErr)
	}
	err = removeContent(ctx, fd, shown, depth)
	unix.Close(fd)
	if err != nil {
		return err
	}
	return at(shown, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

// removeContent removes the contents of an open directory. It reads the directory until it is empty, because reading
// during removal can skip entries.
func removeContent(ctx context.Context, fd int, shown string, depth int) error {
	for {
		count := 0
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return at(shown, err)
		}
		err := eachEntry(fd, func(e entry) error {
			count++
			inner := path.Join(shown, e.name)
			if err := removeTree(ctx, fd, e.name, inner, depth+1); !isMissing(err) {
				return err
			}
			return nil
		})
		if err != nil || count == 0 {
			return at(shown, err)
		}
	}
}
