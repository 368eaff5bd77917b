package files

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

// Number of bytes that are copied between two checks for cancellation.
const copyStep = 16 << 20

// CopyFile implements FileService.
func (s *Service) CopyFile(ctx context.Context, request *sandpoolv1.CopyFileRequest) (*sandpoolv1.CopyFileResponse, error) {
	info, err := s.transfer(request.GetSource(), request.GetDestination(), func(source, destination *location, from string) error {
		return copyOver(ctx, source, destination, from, request.GetOverwrite())
	})
	if err != nil {
		return nil, err
	}
	return &sandpoolv1.CopyFileResponse{File: info}, nil
}

// MoveFile implements FileService.
func (s *Service) MoveFile(ctx context.Context, request *sandpoolv1.MoveFileRequest) (*sandpoolv1.MoveFileResponse, error) {
	info, err := s.transfer(request.GetSource(), request.GetDestination(), func(source, destination *location, from string) error {
		if isPseudo(fileSystem(source.dir)) {
			return at(from, errPseudo)
		}
		return move(ctx, source, destination, from, request.GetOverwrite())
	})
	if err != nil {
		return nil, err
	}
	return &sandpoolv1.MoveFileResponse{File: info}, nil
}

type work func(source, destination *location, from string) error

// transfer looks up both locations, creates the parents of the destination, calls do and describes the destination.
func (s *Service) transfer(sourceName, destinationName string, do work) (*sandpoolv1.FileInfo, error) {
	from, err := cleanPath("source", sourceName)
	if err != nil {
		return nil, err
	}
	to, err := cleanPath("destination", destinationName)
	if err != nil {
		return nil, err
	}
	owner, err := s.owner("destination", "")
	if err != nil {
		return nil, err
	}
	source, err := search{}.find(from)
	if err != nil {
		return nil, failure(from, err)
	}
	defer source.close()
	if _, err := source.stat(); err != nil {
		return nil, failure(from, err)
	}
	destination, err := search{make: makeParents(parentMode, owner)}.toChange(to)
	if err != nil {
		return nil, failure(to, err)
	}
	defer destination.close()
	if err := do(source, destination, from); err != nil {
		return nil, failure(to, err)
	}
	info, err := s.describer().location(destination, to)
	return info, failure(to, err)
}

// move renames the object. If source and destination are in different file systems, it copies and removes it.
func move(ctx context.Context, source, destination *location, from string, overwrite bool) error {
	err := rename(source.dir, source.name, destination, overwrite)
	switch {
	case errors.Is(err, unix.EINVAL):
		return errIntoItself
	case !errors.Is(err, unix.EXDEV):
		return err
	}
	if err := copyOver(ctx, source, destination, from, overwrite); err != nil {
		return err
	}
	return removeTree(context.WithoutCancel(ctx), source.dir, source.name, from, 0)
}

// rename moves an object within a file system. A directory is never replaced.
func rename(dir int, name string, to *location, overwrite bool) error {
	if to.name == "." || name == "." {
		return unix.EBUSY
	}
	existing, err := to.stat()
	switch {
	case err == nil && (!overwrite || isDirectory(existing)):
		return unix.EEXIST
	case err != nil && err != unix.ENOENT:
		return err
	}
	if !overwrite {
		err := unix.Renameat2(dir, name, to.dir, to.name, unix.RENAME_NOREPLACE)
		if err != unix.EINVAL && err != unix.ENOSYS {
			return err
		}
		// Either the file system does not support the flag, or a directory would be moved into itself. Renameat returns
		// which.
	}
	return unix.Renameat(dir, name, to.dir, to.name)
}

// copyOver copies to a hidden name first, so that the complete copy appears atomically.
func copyOver(ctx context.Context, source, destination *location, from string, overwrite bool) error {
	existing, err := destination.stat()
	if err == nil && (!overwrite || isDirectory(existing)) {
		return unix.EEXIST
	}
	if destination.name == "." {
		return unix.EEXIST
	}
	if err := checkNotInside(source, destination.dir); err != nil {
		return err
	}
	hidden := hiddenName()
	c := copier{ctx: ctx}
	err = c.copy(source.dir, source.name, destination.dir, hidden, from, 0)
	if err == nil {
		err = rename(destination.dir, hidden, destination, overwrite)
	}
	if err != nil {
		clean := removeTree(context.WithoutCancel(ctx), destination.dir, hidden, hidden, 0)
		if clean != nil && !errors.Is(clean, unix.ENOENT) {
			return errors.Join(err, clean)
		}
	}
	return err
}

// checkNotInside returns an error if dir is inside of the directory source.
func checkNotInside(source *location, dir int) error {
	sourceStat, err := source.stat()
	if err != nil || !isDirectory(sourceStat) {
		return err
	}
	at, err := openAt(dir, ".", openPath|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	for level := 0; ; level++ {
		var stat unix.Stat_t
		if err := unix.Fstat(at, &stat); err != nil {
			return err
		}
		if stat.Dev == sourceStat.Dev && stat.Ino == sourceStat.Ino {
			return errIntoItself
		}
		above, err := openAt(at, "..", openPath|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		var parent unix.Stat_t
		err = unix.Fstat(above, &parent)
		unix.Close(at)
		at = above
		if err != nil || parent.Dev == stat.Dev && parent.Ino == stat.Ino || level > maxDepth {
			return err
		}
	}
}

// copier copies a tree with modes, owners and times. Symbolic links are copied as links, named pipes and sockets as
// such.
type copier struct {
	ctx context.Context
}

func (c *copier) copy(dir int, name string, toDir int, toName, shown string, depth int) error {
	if err := contextError(c.ctx); err != nil {
		return err
	}
	stat, err := lstat(dir, name)
	if err != nil {
		return at(shown, err)
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return at(shown, c.file(dir, name, toDir, toName))
	case unix.S_IFDIR:
		return c.directory(dir, name, toDir, toName, shown, depth)
	case unix.S_IFLNK:
		target, err := readLink(dir, name)
		if err != nil {
			return at(shown, err)
		}
		err = unix.Symlinkat(target, toDir, toName)
		return at(shown, errors.Join(err, applyStatAt(toDir, toName, stat, err)))
	case unix.S_IFIFO, unix.S_IFSOCK:
		err := unix.Mknodat(toDir, toName, stat.Mode&unix.S_IFMT|0o600, 0)
		return at(shown, errors.Join(err, applyStatAt(toDir, toName, stat, err)))
	default:
		return at(shown, errNotFile)
	}
}

func (c *copier) file(dir int, name string, toDir int, toName string) error {
	from, stat, err := openFile(&location{dir, name})
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := openAt(toDir, toName, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if err := copyBytes(c.ctx, from, to, 0); err != nil {
		return err
	}
	if err := applyStat(to, stat); err != nil {
		return err
	}
	return setTimes(toDir, toName, stat)
}

func (c *copier) directory(dir int, name string, toDir int, toName, shown string, depth int) error {
	if depth > maxDepth {
		return at(shown, errTooDeep)
	}
	from, err := openAt(dir, name, openDirectory, 0)
	if err != nil {
		return at(shown, err)
	}
	defer unix.Close(from)
	var stat unix.Stat_t
	if err := unix.Fstat(from, &stat); err != nil {
		return at(shown, err)
	}
	if err := unix.Mkdirat(toDir, toName, 0o700); err != nil {
		return at(shown, err)
	}
	to, err := openAt(toDir, toName, openDirectory, 0)
	if err != nil {
		return at(shown, err)
	}
	defer unix.Close(to)
	err = eachEntry(from, func(e entry) error {
		return c.copy(from, e.name, to, e.name, path.Join(shown, e.name), depth+1)
	})
	if err != nil {
		return at(shown, err)
	}
	if err := applyStat(to, &stat); err != nil {
		return at(shown, err)
	}
	return at(shown, setTimes(toDir, toName, &stat))
}

func setTimes(dir int, name string, stat *unix.Stat_t) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{stat.Atim, stat.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// applyStat sets the owner and the mode of an open file.
func applyStat(fd int, stat *unix.Stat_t) error {
	if err := unix.Fchown(fd, int(stat.Uid), int(stat.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(fd, stat.Mode&permissionBits)
}

// applyStatAt sets the owner, the mode and the times of an object that cannot be opened. It does nothing if failed is
// set. The object is held open with O_PATH, so that no other process can replace it in between.
func applyStatAt(dir int, name string, stat *unix.Stat_t, failed error) error {
	if failed != nil {
		return nil
	}
	fd, err := openAt(dir, name, openPath, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchownat(fd, "", int(stat.Uid), int(stat.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if !isLink(stat) {
		var made unix.Stat_t
		if err := unix.Fstat(fd, &made); err != nil || isLink(&made) {
			return errors.Join(err, unix.ELOOP)
		}
		if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), stat.Mode&permissionBits); err != nil {
			return err
		}
	}
	return setTimes(dir, name, stat)
}

// copyBytes copies the content of a file to an offset of another file, in the kernel if possible.
func copyBytes(ctx context.Context, from, to int, toOffset int64) error {
	var offset int64
	for {
		if err := contextError(ctx); err != nil {
			return err
		}
		n, err := unix.CopyFileRange(from, &offset, to, &toOffset, copyStep, 0)
		switch {
		case err == unix.EINTR:
		case err == unix.EXDEV, err == unix.EINVAL, err == unix.EOPNOTSUPP, err == unix.ENOSYS, err == nil && n == 0:
			// This is also necessary at the end, because the kernel copies nothing from files whose content it
			// generates on read.
			return copyByHand(ctx, from, offset, to, toOffset)
		case err != nil:
			return err
		}
	}
}

func copyByHand(ctx context.Context, from int, offset int64, to int, toOffset int64) error {
	buffer := make([]byte, smallBuffer)
	for {
		if err := contextError(ctx); err != nil {
			return err
		}
		n, err := readAt(from, buffer, offset)
		if err != nil || n == 0 {
			return err
		}
		if err := writeAt(to, buffer[:n], toOffset); err != nil {
			return err
		}
		offset += int64(n)
		toOffset += int64(n)
	}
}
