package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// hiddenPrefix is the prefix of the temporary names of objects that are not complete.
const hiddenPrefix = ".sandpool-"

// hiddenName returns a unique temporary name.
func hiddenName() string { return hiddenPrefix + strings.ToLower(rand.Text()) }

func isHidden(name string) bool { return strings.HasPrefix(name, hiddenPrefix) }

// scratch is a file that is being written and has no name yet (O_TMPFILE). It is not visible, it counts against the
// disk limit of the sandbox, and it is removed when the agent closes it or exits. If the file system does not support
// such files, it has a hidden name until it is closed.
//
// It is never synced to the disk. The disk of a sandbox exists only as long as its container, and a machine that loses
// power loses its containers, so a sync would cost milliseconds without benefit.
type scratch struct {
	fd int
	// dir and name are set if the file has a hidden name; otherwise dir is -1.
	dir  int
	name string
}

// newScratch creates a file in an open directory.
func newScratch(dir int) (*scratch, error) {
	fd, err := openAt(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &scratch{fd: fd, dir: -1}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, err
	}
	return newNamedScratch(dir)
}

func newNamedScratch(dir int) (*scratch, error) {
	ownDir, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	name := hiddenName()
	fd, err := openAt(ownDir, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		unix.Close(ownDir)
		return nil, err
	}
	return &scratch{fd: fd, dir: ownDir, name: name}, nil
}

// close closes the file. If it was not published, its content is lost.
func (s *scratch) close() {
	unix.Close(s.fd)
	if s.dir >= 0 {
		// If the file was published, the hidden name no longer exists. Other errors cannot be handled.
		_ = unix.Unlinkat(s.dir, s.name, 0)
		unix.Close(s.dir)
	}
}

// write writes bytes at an offset.
func (s *scratch) write(data []byte, offset int64) error { return writeAt(s.fd, data, offset) }

func writeAt(fd int, data []byte, offset int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
		offset += int64(n)
	}
	return nil
}

// setOwner sets owner and mode. The mode is set last, because a change of the owner clears the set-user-id bits.
func (s *scratch) setOwner(uid, gid int, mode uint32) error {
	if err := unix.Fchown(s.fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(s.fd, mode)
}

// publish gives the file its name, atomically. The error is EEXIST if the name exists and must not be replaced, and
// EBUSY if the existing object is a mount point and cannot be replaced.
func (s *scratch) publish(at *location, replace bool) error {
	err := s.link(at.dir, at.name)
	if err != unix.EEXIST || !replace {
		return err
	}
	hidden := hiddenName()
	if err := s.link(at.dir, hidden); err != nil {
		return err
	}
	if err := unix.Renameat(at.dir, hidden, at.dir, at.name); err != nil {
		_ = unix.Unlinkat(at.dir, hidden, 0)
		return err
	}
	return nil
}

// link gives the file an unused name. The error is EEXIST if the name exists.
func (s *scratch) link(dir int, name string) error {
	if s.dir >= 0 {
		return unix.Linkat(s.dir, s.name, dir, name, 0)
	}
	// Linking by the descriptor (AT_EMPTY_PATH) requires a capability that containers do not have.
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", s.fd), dir, name, unix.AT_SYMLINK_FOLLOW)
}
