package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// hiddenPrefix begins the names that something has for the moment before it gets its own.
const hiddenPrefix = ".sandpool-"

// hiddenName is a name that nobody else has.
func hiddenName() string { return hiddenPrefix + strings.ToLower(rand.Text()) }

func isHidden(name string) bool { return strings.HasPrefix(name, hiddenPrefix) }

// scratch is a file that is being written and has no name yet (O_TMPFILE): nobody sees it, it counts against the
// sandbox's disk, and when the agent closes it or dies, it is gone. On a file system that has no such files it has a
// hidden name until it is closed.
//
// It is never synced to the disk: the disk of a sandbox lives no longer than its container, and a machine that loses
// power loses its containers, so a sync would cost milliseconds and save nothing.
type scratch struct {
	fd int
	// dir and name are set if it has a name; else dir is -1.
	dir  int
	name string
}

// newScratch makes a file in an open folder.
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
	own, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	name := hiddenName()
	fd, err := openAt(own, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		unix.Close(own)
		return nil, err
	}
	return &scratch{fd: fd, dir: own, name: name}, nil
}

// close throws away what has not been published.
func (s *scratch) close() {
	unix.Close(s.fd)
	if s.dir >= 0 {
		// Gone already if it was published, and nothing can be done if it is not.
		_ = unix.Unlinkat(s.dir, s.name, 0)
		unix.Close(s.dir)
	}
}

// write puts bytes at an offset.
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

// own sets owner and mode; the mode last, for a new owner clears the set-user-id bits.
func (s *scratch) own(uid, gid int, mode uint32) error {
	if err := unix.Fchown(s.fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(s.fd, mode)
}

// publish gives the file its name, all at once. EEXIST if one is there and it is not to be replaced; EBUSY if one is
// there that cannot be replaced because it is a mount.
func (s *scratch) publish(at *place, replace bool) error {
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

// link gives the file a name that is free; EEXIST if it is not.
func (s *scratch) link(dir int, name string) error {
	if s.dir >= 0 {
		return unix.Linkat(s.dir, s.name, dir, name, 0)
	}
	// By descriptor alone (AT_EMPTY_PATH) takes a capability that containers lack.
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", s.fd), dir, name, unix.AT_SYMLINK_FOLLOW)
}
