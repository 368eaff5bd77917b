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

// UploadFolder implements FileService.
func (s *Service) UploadFolder(
	stream grpc.ClientStreamingServer[sandpoolv1.UploadFolderRequest, sandpoolv1.UploadFolderResponse],
) error {
	first, err := stream.Recv()
	if err == io.EOF || err == nil && first.GetTarget() == nil {
		return missingFirst()
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
	u := &unpacker{base: name, root: root, owner: owner, buffer: buffer, folder: -1}
	defer u.leaveFolder()
	in := newArriving(stream)
	defer in.close()
	err = u.unpack(tar.NewReader(in))
	if in.err != nil {
		return in.err // The archive is broken because the call is.
	}
	if err != nil {
		return failure(name, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return stream.SendAndClose(&sandpoolv1.UploadFolderResponse{Entries: u.entries, BytesWritten: u.bytes})
}

// openTarget opens the folder to write to; it is made where it is missing.
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

// arriving reads the content of a stream's messages.
type arriving struct {
	stream  grpc.ClientStreamingServer[sandpoolv1.UploadFolderRequest, sandpoolv1.UploadFolderResponse]
	part    part
	content *mem.Reader
	// err is what broke the call.
	err error
}

func newArriving(
	stream grpc.ClientStreamingServer[sandpoolv1.UploadFolderRequest, sandpoolv1.UploadFolderResponse],
) *arriving {
	return &arriving{
		stream: stream, part: part{message: &sandpoolv1.UploadFolderRequest{}}, content: mem.BufferSlice(nil).Reader(),
	}
}

func (a *arriving) close() {
	a.part.free()
	_ = a.content.Close() // Never fails.
}

func (a *arriving) Read(buffer []byte) (int, error) {
	for a.content.Remaining() == 0 {
		if err := a.receive(); err != nil {
			return 0, err
		}
	}
	return a.content.Read(buffer)
}

func (a *arriving) receive() error {
	err := a.stream.RecvMsg(&a.part)
	if err == io.EOF {
		return err
	}
	if err == nil && !a.part.isContent {
		err = missingFirst()
	}
	if err != nil {
		a.err = err
		return err
	}
	a.content.Reset(a.part.buffers)
	_, err = a.content.Discard(a.part.lead)
	return err
}

// unpacker writes an archive's entries into an open folder. No symbolic link is followed, neither one of the archive nor
// one that was there.
type unpacker struct {
	base   string
	root   int
	owner  owner
	buffer []byte

	// folder is that of the last entry, kept for the next; -1 if none is.
	folder     int
	folderName string

	entries int64
	bytes   int64
}

func invalid(text string) error {
	return &refusal{codes.FailedPrecondition, reasonArchiveInvalid, text}
}

func (u *unpacker) unpack(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return at(u.base, invalid("what arrived is no tar archive, or a part of one ("+err.Error()+"); a compressed one has to be unpacked first"))
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		parts, err := entryParts(header.Name)
		if err != nil {
			return at(path.Join(u.base, header.Name), err)
		}
		if len(parts) == 0 {
			continue // The folder itself, which stays as it is.
		}
		if err := u.entry(archive, header, parts); err != nil {
			return at(path.Join(u.base, path.Join(parts...)), err)
		}
		u.entries++
	}
}

// entryParts takes the name of an entry apart.
func entryParts(name string) ([]string, error) {
	if strings.HasPrefix(name, "/") {
		return nil, invalid("an entry of the archive has an absolute name")
	}
	if strings.ContainsRune(name, 0) {
		return nil, invalid("an entry of the archive has a NUL in its name")
	}
	var parts []string
	for _, part := range strings.Split(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return nil, invalid("an entry of the archive has .. in its name")
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
		return u.makeFolder(header, dir, name, owner)
	case tar.TypeSymlink:
		return replace(dir, name, func(hidden string) error {
			if err := unix.Symlinkat(header.Linkname, dir, hidden); err != nil {
				return err
			}
			return u.likeHeader(dir, hidden, header, owner)
		})
	case tar.TypeFifo:
		return replace(dir, name, func(hidden string) error {
			if err := unix.Mknodat(dir, hidden, unix.S_IFIFO|0o600, 0); err != nil {
				return err
			}
			return u.likeHeader(dir, hidden, header, owner)
		})
	case tar.TypeLink:
		return u.link(header, dir, name)
	case tar.TypeChar, tar.TypeBlock:
		return invalid("an entry of the archive is a device")
	}
	return invalid("an entry of the archive is of a kind that is not known")
}

func (u *unpacker) ownerOf(header *tar.Header) (owner, error) {
	if u.owner.given {
		return u.owner, nil
	}
	const most = 1<<32 - 2 // The next one means nobody to the kernel.
	if header.Uid < 0 || header.Gid < 0 || header.Uid > most || header.Gid > most {
		return owner{}, invalid("an entry of the archive has an owner that no file can have")
	}
	return owner{uid: header.Uid, gid: header.Gid, given: true}, nil
}

// enter opens a folder in the root by its names, makes it where it is missing and keeps it open for the next entry.
func (u *unpacker) enter(parts []string) (int, error) {
	wanted := strings.Join(parts, "/")
	if u.folder >= 0 && u.folderName == wanted {
		return u.folder, nil
	}
	fd, err := u.look(parts, true)
	if err != nil {
		return -1, err
	}
	u.leaveFolder()
	u.folder, u.folderName = fd, wanted
	return fd, nil
}

func (u *unpacker) leaveFolder() {
	if u.folder >= 0 {
		unix.Close(u.folder)
		u.folder = -1
	}
}

func (u *unpacker) step(dir int, name string, create bool) (int, error) {
	next, err := openAt(dir, name, openPlace|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT && create {
		if err = makeFolder(dir, name, parentMode, u.owner); err == nil || err == unix.EEXIST {
			next, err = openAt(dir, name, openPlace|unix.O_DIRECTORY, 0)
		}
	}
	if err == nil && isPseudo(fileSystem(next)) {
		unix.Close(next)
		return -1, errPseudo
	}
	if err == unix.ENOTDIR || err == unix.ELOOP {
		if stat, statErr := lstat(dir, name); statErr == nil && isLink(stat) {
			return -1, invalid("an entry of the archive lies behind a symbolic link")
		}
	}
	return next, err
}

func (u *unpacker) makeFolder(header *tar.Header, dir int, name string, owner owner) error {
	mode := uint32(header.Mode) & permissionBits
	err := makeFolder(dir, name, mode, owner)
	if err != unix.EEXIST {
		return err
	}
	fd, err := u.step(dir, name, false)
	if err != nil {
		return err
	}
	unix.Close(fd)
	fd, err = openAt(dir, name, openFolder, 0)
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
			return invalid("the archive ends in the middle of a file: " + err.Error())
		}
	}
	if err := scratch.own(owner.uid, owner.gid, uint32(header.Mode)&permissionBits); err != nil {
		return err
	}
	if err := scratch.publish(&place{dir, name}, true); err != nil {
		return err
	}
	return setTimes(dir, name, timesOf(header))
}

func timesOf(header *tar.Header) *unix.Stat_t {
	modified := unix.Timespec{Sec: header.ModTime.Unix(), Nsec: int64(header.ModTime.Nanosecond())}
	return &unix.Stat_t{Atim: modified, Mtim: modified}
}

// likeHeader gives what cannot be opened the owner, mode and time of an entry.
func (u *unpacker) likeHeader(dir int, name string, header *tar.Header, owner owner) error {
	stat := timesOf(header)
	stat.Uid, stat.Gid, stat.Mode = uint32(owner.uid), uint32(owner.gid), uint32(header.Mode)&permissionBits|unix.S_IFIFO
	if header.Typeflag == tar.TypeSymlink {
		stat.Mode = unix.S_IFLNK
	}
	return likeNode(dir, name, stat, nil)
}

// link makes another name for a file in the same folder.
func (u *unpacker) link(header *tar.Header, dir int, name string) error {
	parts, err := entryParts(header.Linkname)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return invalid("a hard link of the archive leads to no file")
	}
	target, err := u.look(parts[:len(parts)-1], false)
	if errors.Is(err, unix.ENOENT) {
		return invalid("a hard link of the archive leads to no file")
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	last := parts[len(parts)-1]
	stat, err := lstat(target, last)
	if err != nil || !isRegular(stat) {
		return invalid("a hard link of the archive leads to no file")
	}
	return replace(dir, name, func(hidden string) error { return unix.Linkat(target, last, dir, hidden, 0) })
}

// look opens a folder in the root by its names; missing ones are made if wanted.
func (u *unpacker) look(parts []string, create bool) (int, error) {
	fd, err := openAt(u.root, ".", openPlace|unix.O_DIRECTORY, 0)
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

// replace makes something under a hidden name and gives it its own, in the place of what is there unless that is a folder.
func replace(dir int, name string, build func(hidden string) error) error {
	hidden := hiddenName()
	err := build(hidden)
	if err == nil {
		err = unix.Renameat(dir, hidden, dir, name)
	}
	// Also after success: renaming one name of a file to another one of it does nothing.
	if clean := unix.Unlinkat(dir, hidden, 0); clean != nil && clean != unix.ENOENT {
		return errors.Join(err, clean)
	}
	return err
}
