package files

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

// UploadDirectory implements FileService.
func (s *Service) UploadDirectory(
	stream grpc.ClientStreamingServer[sandpoolv1.UploadDirectoryRequest, sandpoolv1.UploadDirectoryResponse],
) error {
	first, err := stream.Recv()
	if err == io.EOF || err == nil && first.GetTarget() == nil {
		return errTarget()
	}
	if err != nil {
		return err
	}
	name, err := cleanPath("target.path", first.GetTarget().GetPath())
	if err != nil {
		return err
	}
	owner, err := s.owner("target.owner", first.GetTarget().GetOwner())
	if err != nil {
		return err
	}
	root, err := s.openTarget(name, owner)
	if err != nil {
		return failure(name, err)
	}
	defer unix.Close(root)
	buffer, done := s.buffers.get()
	defer done()
	u := &unpacker{base: name, root: root, owner: owner, buffer: buffer, directory: -1}
	defer u.leaveDirectory()
	in := newUploadReader(stream)
	defer in.close()
	err = u.unpack(tar.NewReader(in))
	if in.err != nil {
		return in.err // The archive is incomplete because the call failed.
	}
	if err != nil {
		return failure(name, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return stream.SendAndClose(&sandpoolv1.UploadDirectoryResponse{Entries: u.entries, BytesWritten: u.bytes})
}

// openTarget opens the directory to write to. It is created if it is missing.
func (s *Service) openTarget(name string, owner owner) (int, error) {
	if _, err := s.makeDirectory(name, parentMode, owner); err != nil {
		if err == unix.EEXIST {
			err = unix.ENOTDIR
		}
		return -1, err
	}
	fd, err := openTree(name)
	if err == nil && isPseudo(fileSystem(fd)) {
		unix.Close(fd)
		return -1, errPseudo
	}
	return fd, err
}

// uploadReader reads the content of the messages of a stream.
type uploadReader struct {
	stream  grpc.ClientStreamingServer[sandpoolv1.UploadDirectoryRequest, sandpoolv1.UploadDirectoryResponse]
	part    part
	content *mem.Reader
	// err is the error of the call.
	err error
}

func newUploadReader(
	stream grpc.ClientStreamingServer[sandpoolv1.UploadDirectoryRequest, sandpoolv1.UploadDirectoryResponse],
) *uploadReader {
	return &uploadReader{
		stream: stream, part: part{message: &sandpoolv1.UploadDirectoryRequest{}}, content: mem.BufferSlice(nil).Reader(),
	}
}

func (a *uploadReader) close() {
	a.part.free()
	_ = a.content.Close() // This never fails.
}

func (a *uploadReader) Read(buffer []byte) (int, error) {
	for a.content.Remaining() == 0 {
		if err := a.receive(); err != nil {
			return 0, err
		}
	}
	return a.content.Read(buffer)
}

func (a *uploadReader) receive() error {
	err := a.stream.RecvMsg(&a.part)
	if err == io.EOF {
		return err
	}
	if err == nil && !a.part.isContent {
		err = errTarget()
	}
	if err != nil {
		a.err = err
		return err
	}
	a.content.Reset(a.part.buffers)
	_, err = a.content.Discard(a.part.headBytes)
	return err
}

// unpacker writes the entries of an archive into an open directory. It follows no symbolic link, neither of the archive
// nor an existing one.
type unpacker struct {
	base   string
	root   int
	owner  owner
	buffer []byte

	// directory is the directory of the last entry, held open for the next entry; -1 if there is none.
	directory     int
	directoryName string

	entries int64
	bytes   int64
}

func invalid(text string) error {
	return &pathError{codes.FailedPrecondition, reasonArchiveInvalid, text}
}

func (u *unpacker) unpack(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return at(u.base, invalid("the received bytes are not a complete tar archive ("+err.Error()+
				"); send an uncompressed tar archive"))
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		parts, err := entryParts(header.Name)
		if err != nil {
			return at(path.Join(u.base, header.Name), err)
		}
		if len(parts) == 0 {
			continue // The entry is the directory itself, which is not changed.
		}
		if err := u.entry(archive, header, parts); err != nil {
			return at(path.Join(u.base, path.Join(parts...)), err)
		}
		u.entries++
	}
}

// entryParts splits the name of an entry.
func entryParts(name string) ([]string, error) {
	if strings.HasPrefix(name, "/") {
		return nil, invalid("the name of the archive entry is absolute; use relative names")
	}
	if strings.ContainsRune(name, 0) {
		return nil, invalid("the name of the archive entry contains NUL; rename it")
	}
	var parts []string
	for _, part := range strings.Split(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return nil, invalid("the name of the archive entry contains ..; use names inside of the directory")
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) > maxDepth {
		return nil, errTooDeep
	}
	return parts, nil
}

func (u *unpacker) entry(archive *tar.Reader, header *tar.Header, parts []string) error {
	owner, err := u.ownerOf(header)
	if err != nil {
		return err
	}
	dir, err := u.enter(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(archive, header, dir, name, owner)
	case tar.TypeDir:
		return u.makeDirectory(header, dir, name, owner)
	case tar.TypeSymlink:
		return replace(dir, name, func(hidden string) error {
			if err := unix.Symlinkat(header.Linkname, dir, hidden); err != nil {
				return err
			}
			return u.applyHeader(dir, hidden, header, owner)
		})
	case tar.TypeFifo:
		return replace(dir, name, func(hidden string) error {
			if err := unix.Mknodat(dir, hidden, unix.S_IFIFO|0o600, 0); err != nil {
				return err
			}
			return u.applyHeader(dir, hidden, header, owner)
		})
	case tar.TypeLink:
		return u.link(header, dir, name)
	case tar.TypeChar, tar.TypeBlock:
		return invalid("the archive entry is a device; remove it from the archive")
	}
	return invalid("the type of the archive entry is not supported; remove it from the archive")
}

func (u *unpacker) ownerOf(header *tar.Header) (owner, error) {
	if u.owner.explicit {
		return u.owner, nil
	}
	const most = 1<<32 - 2 // The kernel uses the next number for "no id".
	if header.Uid < 0 || header.Gid < 0 || header.Uid > most || header.Gid > most {
		return owner{}, invalid("the owner of the archive entry is out of range; set target.owner")
	}
	return owner{uid: header.Uid, gid: header.Gid, explicit: true}, nil
}

// enter opens a directory in the root, creates missing directories, and holds it open for the next entry.
func (u *unpacker) enter(parts []string) (int, error) {
	wantedName := strings.Join(parts, "/")
	if u.directory >= 0 && u.directoryName == wantedName {
		return u.directory, nil
	}
	fd, err := u.walkTo(parts, true)
	if err != nil {
		return -1, err
	}
	u.leaveDirectory()
	u.directory, u.directoryName = fd, wantedName
	return fd, nil
}

func (u *unpacker) leaveDirectory() {
	if u.directory >= 0 {
		unix.Close(u.directory)
		u.directory = -1
	}
}

func (u *unpacker) step(dir int, name string, create bool) (int, error) {
	next, err := openAt(dir, name, openPath|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT && create {
		if err = makeDirectory(dir, name, parentMode, u.owner); err == nil || err == unix.EEXIST {
			next, err = openAt(dir, name, openPath|unix.O_DIRECTORY, 0)
		}
	}
	if err == nil && isPseudo(fileSystem(next)) {
		unix.Close(next)
		return -1, errPseudo
	}
	if err == unix.ENOTDIR || err == unix.ELOOP {
		if stat, statErr := lstat(dir, name); statErr == nil && isLink(stat) {
			return -1, invalid("the path of the archive entry contains a symbolic link; remove the link or the entry")
		}
	}
	return next, err
}

func (u *unpacker) makeDirectory(header *tar.Header, dir int, name string, owner owner) error {
	mode := uint32(header.Mode) & permissionBits
	err := makeDirectory(dir, name, mode, owner)
	if err != unix.EEXIST {
		return err
	}
	fd, err := u.step(dir, name, false)
	if err != nil {
		return err
	}
	unix.Close(fd)
	fd, err = openAt(dir, name, openDirectory, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, owner.uid, owner.gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

func (u *unpacker) file(archive *tar.Reader, header *tar.Header, dir int, name string, owner owner) error {
	scratch, err := newScratch(dir)
	if err != nil {
		return err
	}
	defer scratch.close()
	for offset := int64(0); ; {
		n, err := archive.Read(u.buffer)
		if n > 0 {
			if err := scratch.write(u.buffer[:n], offset); err != nil {
				return err
			}
			offset += int64(n)
			u.bytes += int64(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return invalid("the archive ends within a file (" + err.Error() + "); send the complete archive")
		}
	}
	if err := scratch.setOwner(owner.uid, owner.gid, uint32(header.Mode)&permissionBits); err != nil {
		return err
	}
	if err := scratch.publish(&location{dir, name}, true); err != nil {
		return err
	}
	return setTimes(dir, name, timesOf(header))
}

func timesOf(header *tar.Header) *unix.Stat_t {
	modified := unix.Timespec{Sec: header.ModTime.Unix(), Nsec: int64(header.ModTime.Nanosecond())}
	return &unix.Stat_t{Atim: modified, Mtim: modified}
}

// applyHeader sets the owner, the mode and the time of an entry that cannot be opened.
func (u *unpacker) applyHeader(dir int, name string, header *tar.Header, owner owner) error {
	stat := timesOf(header)
	stat.Uid, stat.Gid, stat.Mode = uint32(owner.uid), uint32(owner.gid), uint32(header.Mode)&permissionBits|unix.S_IFIFO
	if header.Typeflag == tar.TypeSymlink {
		stat.Mode = unix.S_IFLNK
	}
	return applyStatAt(dir, name, stat, nil)
}

// link creates another name for a file in the same tree.
func (u *unpacker) link(header *tar.Header, dir int, name string) error {
	parts, err := entryParts(header.Linkname)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return invalid("the target of the hard link in the archive is not a file; put the file before the link")
	}
	target, err := u.walkTo(parts[:len(parts)-1], false)
	if errors.Is(err, unix.ENOENT) {
		return invalid("the target of the hard link in the archive is not a file; put the file before the link")
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	last := parts[len(parts)-1]
	stat, err := lstat(target, last)
	if err != nil || !isRegular(stat) {
		return invalid("the target of the hard link in the archive is not a file; put the file before the link")
	}
	return replace(dir, name, func(hidden string) error { return unix.Linkat(target, last, dir, hidden, 0) })
}

// walkTo opens a directory in the root. If create is set, missing directories are created.
func (u *unpacker) walkTo(parts []string, create bool) (int, error) {
	fd, err := openAt(u.root, ".", openPath|unix.O_DIRECTORY, 0)
	for _, part := range parts {
		if err != nil {
			return -1, err
		}
		next, stepErr := u.step(fd, part, create)
		unix.Close(fd)
		fd, err = next, stepErr
	}
	return fd, err
}

// replace creates an object under a hidden name and renames it. It replaces an existing object unless that is a
// directory.
func replace(dir int, name string, build func(hidden string) error) error {
	hidden := hiddenName()
	err := build(hidden)
	if err == nil {
		err = unix.Renameat(dir, hidden, dir, name)
	}
	// This is also necessary after success: renaming a name of a file to another name of the same file does nothing.
	if clean := unix.Unlinkat(dir, hidden, 0); clean != nil && clean != unix.ENOENT {
		return errors.Join(err, clean)
	}
	return err
}
