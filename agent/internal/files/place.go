package files

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/rpcerror"
)

const (
	// The contract's limit of a path, in characters; in bytes it is checked here.
	maxPathBytes = 4 * 4096
	// As many as the kernel follows.
	maxLinks  = 40
	maxTarget = unix.PathMax
	openPlace = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// Neither a named pipe nor a device makes an open for reading wait, and no terminal becomes the agent's.
	openRead   = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	openFolder = openRead | unix.O_DIRECTORY
)

// cleanPath takes a path of a request as the contract does: absolute, without NUL, and `.`, `..` and doubled slashes
// resolved before anything else.
func cleanPath(field, name string) (string, error) {
	switch {
	case !strings.HasPrefix(name, "/"):
		return "", rpcerror.BadField(reasonPathInvalid, field, "must be an absolute path")
	case len(name) > maxPathBytes:
		return "", rpcerror.BadField(reasonPathInvalid, field, "longer than %d bytes", maxPathBytes)
	case strings.ContainsRune(name, 0):
		return "", rpcerror.BadField(reasonPathInvalid, field, "has a NUL in it")
	}
	return path.Clean(name), nil
}

// place is a name in a folder that is held open: whatever is swapped on the way to it later, it stays the same place.
type place struct {
	// dir is the folder, opened as a place only (O_PATH).
	dir int
	// name is `.` where the path is the folder itself, as that of the root is.
	name string
}

func (p *place) close() { unix.Close(p.dir) }

// stat tells what is at the place, of a symbolic link the link itself.
func (p *place) stat() (*unix.Stat_t, error) { return lstat(p.dir, p.name) }

func lstat(dir int, name string) (*unix.Stat_t, error) {
	var stat unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW) })
	return &stat, err
}

// search is how a path is walked.
type search struct {
	// follow is whether a symbolic link at the path's end is followed; those on the way always are.
	follow bool
	// make is called for a folder on the way that is missing; nil where that is an error.
	make func(dir int, name string) error
}

// find walks a cleaned path from the root, one name at a time, with the symbolic links that it comes across. They
// cannot lead out of the sandbox, for the agent's root is the sandbox's. Those of /proc, which lead to what a process
// has open, are not followed: they would reach the agent's own files. The end of the path need not exist.
func (s search) find(name string) (*place, error) {
	dir, err := unix.Open("/", openPlace|unix.O_DIRECTORY, 0)
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
			return &place{dir, part}, nil
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
				next, err = unix.Open("/", openPlace|unix.O_DIRECTORY, 0)
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
			return &place{dir, part}, nil
		}
		unix.Close(dir)
		dir = next
	}
	return &place{dir, "."}, nil
}

func isLast(rest []string) bool {
	for _, part := range rest {
		if part != "" && part != "." {
			return false
		}
	}
	return true
}

// step opens a name in a folder as a place: next is -1 where nothing is there and nothing has to be. Of a symbolic link
// it gives the target instead.
func (s search) step(dir int, name string, last bool) (next int, target string, err error) {
	next, err = openAt(dir, name, openPlace, 0)
	if err == unix.ENOENT && !last && s.make != nil {
		if err = s.make(dir, name); err == nil || err == unix.EEXIST {
			next, err = openAt(dir, name, openPlace, 0)
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

// isMagic is whether a symbolic link leads elsewhere than its text says. Of those in /proc only `self`, `thread-self`,
// `mounts`, `net` and their like do not; these have relative targets that name what lies beside them.
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

// fileSystem is the kind of the file system that an open file lies in, 0 where the kernel does not say.
func fileSystem(fd int) int64 {
	var stat unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &stat) }); err != nil {
		return 0
	}
	return int64(stat.Type)
}

// isPseudo is whether a file system holds no files but the kernel's own state. Nothing is written there, made, moved or
// removed, for that would change how the container works and not what it holds; and nobody who asks for a tree means it.
func isPseudo(kind int64) bool {
	switch kind {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
		unix.SELINUX_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC:
		return true
	}
	return false
}

// toChange finds a place where something is to be made, replaced or removed.
func (s search) toChange(name string) (*place, error) {
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
