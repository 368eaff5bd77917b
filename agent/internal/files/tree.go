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
	// Folders in one another that are followed; each holds a file open meanwhile. No path is longer than half of the
	// kernel's 4,096 bytes in folders of one letter.
	maxDepth = 2048
	// What is read of a folder at once.
	direntBytes = 16 << 10
	// Where the name begins in a directory entry of the kernel.
	direntName = 19
)

// entry is a name in a folder.
type entry struct {
	name string
	// kind is DT_DIR and so on, DT_UNKNOWN where the file system does not say.
	kind uint8
}

// isFolder is whether the entry of an open folder is one itself.
func (e entry) isFolder(dir int) bool {
	if e.kind != unix.DT_UNKNOWN {
		return e.kind == unix.DT_DIR
	}
	stat, err := lstat(dir, e.name)
	return err == nil && isFolder(stat)
}

// nextEntries reads some entries of a folder, none at its end.
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

// parseEntries reads the kernel's form: inode, offset, length of the entry, kind, name with a NUL at its end.
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

// eachEntry calls visit for all that is in an open folder, in no order. However large the folder is, it is read in parts.
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

// smallest gives the first names of an open folder in the order of their bytes: up to limit, of those after a name, or
// from it on if inclusive. It reads the whole folder but never holds more than two times limit of it.
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
		return ended(ctx)
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
	case !isFolder(stat):
		return unix.Unlinkat(p.dir, p.name, 0)
	case !recursive:
		return unix.Unlinkat(p.dir, p.name, unix.AT_REMOVEDIR)
	}
	return removeTree(ctx, p.dir, p.name, name, 0)
}

// removeTree removes whatever a name in an open folder is, with all that is in it. What vanishes meanwhile is fine, but for
// the name itself. shown is its path for an error.
func removeTree(ctx context.Context, dir int, name, shown string, depth int) error {
	if err := ended(ctx); err != nil {
		return err
	}
	err := ignoringEINTR(func() error { return unix.Unlinkat(dir, name, 0) })
	// A folder is EISDIR to Linux, EPERM to POSIX.
	if err != unix.EISDIR && err != unix.EPERM {
		return at(shown, err)
	}
	if depth > maxDepth {
		return at(shown, errTooDeep)
	}
	fd, openErr := openAt(dir, name, openFolder, 0)
	if openErr == unix.ENOTDIR {
		return at(shown, err) // A file that may not be removed.
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

// removeContent empties an open folder. It is read until nothing is found in it, for reading while removing may skip.
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
