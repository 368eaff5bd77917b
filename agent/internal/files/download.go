package files

import (
	"archive/tar"
	"context"
	"path"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

// Maximum number of files with several names that are tracked, so that the archive contains their content once. Beyond
// that it contains the content for each name.
const maxTrackedLinks = 1 << 16

// DownloadDirectory implements FileService.
func (s *Service) DownloadDirectory(
	request *sandpoolv1.DownloadDirectoryRequest, stream grpc.ServerStreamingServer[sandpoolv1.DownloadDirectoryResponse],
) error {
	name, err := cleanPath("path", request.GetPath())
	if err != nil {
		return err
	}
	root, err := openTree(name)
	if err != nil {
		return failure(name, err)
	}
	defer unix.Close(root)
	buffer, done := s.buffers.get()
	defer done()
	out := &chunkWriter{stream: stream, buffer: buffer[:0]}
	a := archiver{
		ctx: stream.Context(), base: name, out: tar.NewWriter(out), buffer: make([]byte, smallBuffer),
		describer: s.describer(), links: make(map[inode]string), pseudo: isPseudo(fileSystem(root)),
	}
	if err := a.directory(root, "", 0); err != nil {
		return failure(name, err)
	}
	if err := a.out.Close(); err != nil {
		return failure(name, err)
	}
	return out.flush()
}

// chunkWriter sends the bytes that are written to it in messages of the size of its buffer.
type chunkWriter struct {
	stream grpc.ServerStreamingServer[sandpoolv1.DownloadDirectoryResponse]
	buffer []byte
}

func (p *chunkWriter) Write(data []byte) (int, error) {
	written := len(data)
	for len(data) > 0 {
		n := copy(p.buffer[len(p.buffer):cap(p.buffer)], data)
		p.buffer = p.buffer[:len(p.buffer)+n]
		data = data[n:]
		if len(p.buffer) == cap(p.buffer) {
			if err := p.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (p *chunkWriter) flush() error {
	if len(p.buffer) == 0 {
		return nil
	}
	err := p.stream.Send(&sandpoolv1.DownloadDirectoryResponse{Data: p.buffer})
	p.buffer = p.buffer[:0]
	return err
}

// inode identifies a file.
type inode struct{ device, number uint64 }

// archiver writes a tree as a tar archive. Sockets and devices are skipped, because they are of no use in an archive.
type archiver struct {
	ctx       context.Context
	base      string
	out       *tar.Writer
	buffer    []byte
	describer describer
	links     map[inode]string
	// pseudo is set if the tree is in a pseudo file system of the kernel. Otherwise such file systems are not entered.
	pseudo bool
}

func (a *archiver) directory(fd int, prefix string, depth int) error {
	if depth > maxDepth {
		return at(path.Join(a.base, prefix), errTooDeep)
	}
	err := eachEntry(fd, func(e entry) error {
		if err := contextError(a.ctx); err != nil {
			return err
		}
		inner := path.Join(prefix, e.name)
		return at(path.Join(a.base, inner), ignoreMissing(a.entry(fd, e.name, inner, depth)))
	})
	return at(path.Join(a.base, prefix), err)
}

func (a *archiver) entry(dir int, name, relative string, depth int) error {
	stat, err := lstat(dir, name)
	if err != nil {
		return err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a.file(dir, name, relative)
	case unix.S_IFDIR:
		fd, err := openAt(dir, name, openDirectory, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := a.header(stat, relative+"/", tar.TypeDir, ""); err != nil {
			return err
		}
		if !a.pseudo && isPseudo(fileSystem(fd)) {
			return nil
		}
		return a.directory(fd, relative, depth+1)
	case unix.S_IFLNK:
		target, err := readLink(dir, name)
		if err != nil {
			return err
		}
		return a.header(stat, relative, tar.TypeSymlink, target)
	case unix.S_IFIFO:
		return a.header(stat, relative, tar.TypeFifo, "")
	}
	return nil
}

func (a *archiver) header(stat *unix.Stat_t, name string, kind byte, target string) error {
	header := &tar.Header{
		Format: tar.FormatPAX, Typeflag: kind, Name: name, Linkname: target,
		Mode: int64(stat.Mode & permissionBits), Uid: int(stat.Uid), Gid: int(stat.Gid),
		Uname: printable(a.describer.names.User(stat.Uid)), Gname: printable(a.describer.names.Group(stat.Gid)),
		ModTime: time.Unix(stat.Mtim.Sec, stat.Mtim.Nsec),
	}
	if kind == tar.TypeReg {
		header.Size = stat.Size
	}
	return a.out.WriteHeader(header)
}

func (a *archiver) file(dir int, name, relative string) error {
	fd, stat, err := openFile(&location{dir, name})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if stat.Nlink > 1 {
		key := inode{stat.Dev, stat.Ino}
		if first, known := a.links[key]; known {
			return a.header(stat, relative, tar.TypeLink, first)
		}
		if len(a.links) < maxTrackedLinks {
			a.links[key] = relative
		}
	}
	if err := a.header(stat, relative, tar.TypeReg, ""); err != nil {
		return err
	}
	return a.content(fd, stat.Size)
}

// content writes as many bytes as the header contains. As in tar, a file that became smaller is padded with zeros.
func (a *archiver) content(fd int, size int64) error {
	for offset := int64(0); offset < size; {
		if err := contextError(a.ctx); err != nil {
			return err
		}
		part := a.buffer[:min(int64(len(a.buffer)), size-offset)]
		n, err := readAt(fd, part, offset)
		if err != nil {
			return err
		}
		if n == 0 {
			n = len(part)
			clear(part)
		}
		if _, err := a.out.Write(part[:n]); err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}
