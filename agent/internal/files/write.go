package files

import (
	"context"
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

const defaultFileMode = 0o644

// WriteFile implements FileService.
func (s *Service) WriteFile(
	stream grpc.ClientStreamingServer[sandpoolv1.WriteFileRequest, sandpoolv1.WriteFileResponse],
) error {
	first, err := stream.Recv()
	if err == io.EOF || err == nil && first.GetTarget() == nil {
		return errTarget()
	}
	if err != nil {
		return err
	}
	call, err := s.openUpload(first.GetTarget())
	if err != nil {
		return err
	}
	defer call.release()
	p := part{message: &sandpoolv1.WriteFileRequest{}}
	defer p.free()
	for {
		err := stream.RecvMsg(&p)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if !p.isContent {
			return errTarget()
		}
		if err := call.write(p.size(), p.pieces); err != nil {
			return err
		}
	}
	info, err := call.finish()
	if err != nil {
		return err
	}
	return stream.SendAndClose(&sandpoolv1.WriteFileResponse{File: info})
}

// PutFile implements FileService.
func (s *Service) PutFile(_ context.Context, request *sandpoolv1.PutFileRequest) (*sandpoolv1.PutFileResponse, error) {
	if request.GetTarget() == nil {
		return nil, errTarget()
	}
	call, err := s.openUpload(request.GetTarget())
	if err != nil {
		return nil, err
	}
	defer call.release()
	if err := call.write(int64(len(request.GetData())), slices.Values([][]byte{request.GetData()})); err != nil {
		return nil, err
	}
	received, err := call.received()
	if err != nil {
		return nil, err
	}
	if request.GetMore() {
		return &sandpoolv1.PutFileResponse{ReceivedBytes: received}, nil
	}
	info, err := call.finish()
	if err != nil {
		return nil, err
	}
	return &sandpoolv1.PutFileResponse{File: info, ReceivedBytes: received}, nil
}

// put creates the file at a location from the scratch file of the upload.
func (up *upload) put(at *location) error {
	existing, err := at.stat()
	switch {
	case err == unix.ENOENT:
		existing = nil
	case err != nil:
		return err
	case up.mode == sandpoolv1.WriteMode_WRITE_MODE_CREATE:
		return unix.EEXIST
	default:
		if err := mustBeFile(existing); err != nil {
			return err
		}
	}
	if existing != nil && up.mode == sandpoolv1.WriteMode_WRITE_MODE_APPEND {
		return up.appendTo(at)
	}
	uid, gid, mode := up.ownership(existing)
	if err := up.scratch.setOwner(uid, gid, mode); err != nil {
		return err
	}
	err = up.scratch.publish(at, up.mode != sandpoolv1.WriteMode_WRITE_MODE_CREATE)
	switch {
	case errors.Is(err, unix.EXDEV):
		// The location is in another file system than the nearest existing directory at the start of the upload.
		return up.moveOver(at)
	case errors.Is(err, unix.EBUSY):
		// A mounted file, for example /etc/hosts, must remain the same file.
		return up.overwrite(at, uid, gid, mode)
	}
	return err
}

// ownership returns the owner and the mode of the new file. existing is the file that it replaces, or nil.
func (up *upload) ownership(existing *unix.Stat_t) (uid, gid int, mode uint32) {
	uid, gid, mode = up.target.owner.uid, up.target.owner.gid, defaultFileMode
	if existing != nil {
		mode = existing.Mode & permissionBits
		if !up.target.owner.explicit {
			uid, gid = int(existing.Uid), int(existing.Gid)
		}
	}
	if up.target.mode != nil {
		mode = *up.target.mode & permissionBits
	}
	return uid, gid, mode
}

// moveOver publishes the scratch file in another file system.
func (up *upload) moveOver(at *location) error {
	there, err := newScratch(at.dir)
	if err != nil {
		return err
	}
	if err := copyBytes(context.Background(), up.scratch.fd, there.fd, 0); err != nil {
		there.close()
		return err
	}
	here := up.scratch
	up.scratch = there
	here.close()
	uid, gid, mode := up.ownership(nil)
	if existing, err := at.stat(); err == nil {
		uid, gid, mode = up.ownership(existing)
	}
	if err := up.scratch.setOwner(uid, gid, mode); err != nil {
		return err
	}
	return up.scratch.publish(at, up.mode != sandpoolv1.WriteMode_WRITE_MODE_CREATE)
}

// openToWrite opens an existing regular file.
func openToWrite(at *location) (int, *unix.Stat_t, error) {
	flags := unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := openAt(at.dir, at.name, flags, 0)
	if err != nil {
		return -1, nil, err
	}
	var stat unix.Stat_t
	if err = unix.Fstat(fd, &stat); err == nil {
		err = mustBeFile(&stat)
	}
	if err == nil && isPseudo(fileSystem(fd)) {
		err = errPseudo
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, &stat, nil
}

// overwrite writes the content into a file that cannot be replaced.
func (up *upload) overwrite(at *location, uid, gid int, mode uint32) error {
	fd, _, err := openToWrite(at)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 0); err != nil {
		return err
	}
	if err := copyBytes(context.Background(), up.scratch.fd, fd, 0); err != nil {
		return err
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

// appendTo appends the content to a file. If this fails, the file is truncated to its previous size.
func (up *upload) appendTo(at *location) error {
	fd, stat, err := openToWrite(at)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := copyBytes(context.Background(), up.scratch.fd, fd, stat.Size); err != nil {
		return errors.Join(err, unix.Ftruncate(fd, stat.Size))
	}
	return nil
}
