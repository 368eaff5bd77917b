package files

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/rpcerror"
)

const (
	// The contract limits a path in characters. This is the limit in bytes.
	maxPathBytes = 4 * 4096
	// The same number as in the kernel.
	maxLinks  = 40
	maxTarget = unix.PathMax
	openPath  = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// With these flags, opening a named pipe or a device for reading does not block, and no terminal becomes the
	// controlling terminal of the agent.
	openRead      = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	openDirectory = openRead | unix.O_DIRECTORY
)

// cleanPath validates a path of a request and cleans it as the contract defines: it must be absolute and without NUL,
// and `.`, `..` and repeated slashes are resolved first.
func cleanPath(field, name string) (string, error) {
	switch {
	case !strings.HasPrefix(name, "/"):
		return "", rpcerror.BadField(reasonPathInvalid, field, "must be an absolute path, got %q", shorten(name))
	case len(name) > maxPathBytes:
		return "", rpcerror.BadField(reasonPathInvalid, field, "has %d bytes, the limit is %d", len(name), maxPathBytes)
	case strings.ContainsRune(name, 0):
		return "", rpcerror.BadField(reasonPathInvalid, field, "must not contain NUL")
	}
	return path.Clean(name), nil
}

// location is a name in a directory that is held open. It remains the same location even if directories of its path are
// replaced later.
type location struct {
	// dir is the directory, opened with O_PATH.
	dir int
	// name is `.` if the location is the directory itself, for example the root.
	name string
}

func (p *location) close() { unix.Close(p.dir) }

// stat returns the status of the object at the location; for a symbolic link, of the link itself.
func (p *location) stat() (*unix.Stat_t, error) { return lstat(p.dir, p.name) }

func lstat(dir int, name string) (*unix.Stat_t, error) {
	var stat unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) })
	return &stat, err
}

// search contains the options of a path lookup.
type search struct {
	// follow is set if a symbolic link at the end of the path is followed. Links on the way are always followed.
	follow bool
	// make is called to create a missing directory on the way. If it is nil, a missing directory is an error.
	make func(dir int, name string) error
}

// find looks up a cleaned path from the root, one name at a time, and follows symbolic links. Links cannot lead out of
// the sandbox, because the root of the agent is the root of the sandbox. Links in /proc that lead to open files of a
// process are not followed, because they could lead to files of the agent. The object at the end of the path need not
// exist.
func (s search) find(name string) (*location, error) {
	dir, err := unix.Open("/", openPath|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		last := isLast(rest)
		if last && !s.follow && part != ".." {
			return &location{dir, part}, nil
		}
		next, target, err := s.step(dir, part, last)
		switch {
		case err != nil:
			unix.Close(dir)
			return nil, err
		case target != "":
			if links++; links > maxLinks {
				unix.Close(dir)
				return nil, unix.ELOOP
			}
			rest = append(strings.Split(target, "/"), rest...)
			if strings.HasPrefix(target, "/") {
				next, err = unix.Open("/", openPath|unix.O_DIRECTORY, 0)
				if err != nil {
					unix.Close(dir)
					return nil, err
				}
			} else {
				continue
			}
		case last && part != "..":
			if next >= 0 {
				unix.Close(next)
			}
			return &location{dir, part}, nil
		}
		unix.Close(dir)
		dir = next
	}
	return &location{dir, "."}, nil
}

func isLast(rest []string) bool {
	for _, part := range rest {
		if part != "" && part != "." {
			return false
		}
	}
	return true
}

// step opens a name in a directory with O_PATH. next is -1 if the object does not exist and need not exist. For a
// symbolic link, step returns the target instead.
func (s search) step(dir int, name string, last bool) (next int, target string, err error) {
	next, err = openAt(dir, name, openPath, 0)
	if err == unix.ENOENT && !last && s.make != nil {
		if err = s.make(dir, name); err == nil || err == unix.EEXIST {
			next, err = openAt(dir, name, openPath, 0)
		}
	}
	if err == unix.ENOENT && last {
		return -1, "", nil
	}
	if err != nil {
		return -1, "", err
	}
	var stat unix.Stat_t
	if err = unix.Fstat(next, &stat); err != nil {
		unix.Close(next)
		return -1, "", err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return next, "", nil
	case unix.S_IFLNK:
		defer unix.Close(next)
		if target, err = readLink(next, ""); err != nil {
			return -1, "", err
		}
		if isMagic(next, name, target) {
			return -1, "", unix.ELOOP
		}
		return -1, target, nil
	}
	if !last {
		unix.Close(next)
		return -1, "", unix.ENOTDIR
	}
	return next, "", nil
}

// isMagic reports whether a symbolic link leads to another object than its text names. All links in /proc do, except
// `self`, `thread-self`, `mounts`, `net` and similar links. Those have relative targets in the same directory.
func isMagic(link int, name, target string) bool {
	kind := fileSystem(link)
	if kind != unix.PROC_SUPER_MAGIC {
		return false
	}
	switch name {
	case "self", "thread-self", "mounts", "net":
		return strings.HasPrefix(target, "/")
	}
	return true
}

func readLink(dir int, name string) (string, error) {
	buffer := make([]byte, maxTarget)
	var n int
	err := ignoringEINTR(func() (err error) { n, err = unix.Readlinkat(dir, name, buffer); return })
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", unix.ENOENT
	}
	return string(buffer[:n]), nil
}

func openAt(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = ignoringEINTR(func() (err error) { fd, err = unix.Openat(dir, name, flags, mode); return })
	return fd, err
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// fileSystem returns the type of the file system of an open file, or 0 if it is unknown.
func fileSystem(fd int) int64 {
	var stat unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &stat) }); err != nil {
		return 0
	}
	return int64(stat.Type)
}

// isPseudo reports whether a file system contains state of the kernel instead of files. In such a file system the agent
// does not write, create, move or remove anything, because this would change the container itself. Recursive operations
// skip it.
func isPseudo(kind int64) bool {
	switch kind {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
		unix.SELINUX_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC:
		return true
	}
	return false
}

// toChange looks up a location at which an object is created, replaced or removed.
func (s search) toChange(name string) (*location, error) {
	p, err := s.find(name)
	if err != nil {
		return nil, err
	}
	if isPseudo(fileSystem(p.dir)) {
		p.close()
		return nil, errPseudo
	}
	return p, nil
}
