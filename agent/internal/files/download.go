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

// Files with several names that are remembered, so that each has its content in the archive once. Beyond them it is there
// once for each name.
const maxRememberedLinks = 1 << 16

// DownloadFolder implements FileService.
func (s *Service) DownloadFolder(
	request *sandpoolv1.DownloadFolderRequest, stream grpc.ServerStreamingServer[sandpoolv1.DownloadFolderResponse],
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
	out := &parts{stream: stream, buffer: buffer[:0]}
	a := archiver{
		ctx: stream.Context(), base: name, out: tar.NewWriter(out), buffer: make([]byte, smallBuffer),
		describer: s.describer(), links: make(map[inode]string), pseudo: isPseudo(fileSystem(root)),
	}
	if err := a.folder(root, "", 0); err != nil {
		return failure(name, err)
	}
	if err := a.out.Close(); err != nil {
		return failure(name, err)
	}
	return out.flush()
}

// parts sends what is written to it in messages of the size of its buffer.
type parts struct {
	stream grpc.ServerStreamingServer[sandpoolv1.DownloadFolderResponse]
	buffer []byte
}

func (p *parts) Write(data []byte) (int, error) {
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

func (p *parts) flush() error {
	if len(p.buffer) == 0 {
		return nil
	}
	err := p.stream.Send(&sandpoolv1.DownloadFolderResponse{Data: p.buffer})
	p.buffer = p.buffer[:0]
	return err
}

// inode is what tells one file from another.
type inode struct{ device, number uint64 }

// archiver writes a tree as a tar archive. Sockets and devices are left out, for nobody could do anything with them.
type archiver struct {
	ctx       context.Context
	base      string
	out       *tar.Writer
	buffer    []byte
	describer describer
	links     map[inode]string
	// pseudo is whether the tree lies in the kernel's own file systems; else those are not entered.
	pseudo bool
}

func (a *archiver) folder(fd int, prefix string, depth int) error {
	if depth > maxDepth {
		return at(path.Join(a.base, prefix), errTooDeep)
	}
	err := eachEntry(fd, func(e entry) error {
		if err := ended(a.ctx); err != nil {
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
		fd, err := openAt(dir, name, openFolder, 0)
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
		return a.folder(fd, relative, depth+1)
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
	fd, stat, err := openFile(&place{dir, name})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if stat.Nlink > 1 {
		key := inode{stat.Dev, stat.Ino}
		if first, known := a.links[key]; known {
			return a.header(stat, relative, tar.TypeLink, first)
		}
		if len(a.links) < maxRememberedLinks {
			a.links[key] = relative
		}
	}
	if err := a.header(stat, relative, tar.TypeReg, ""); err != nil {
		return err
	}
	return a.content(fd, stat.Size)
}

// content writes as many bytes as the header says: a file that shrank meanwhile ends in zeros, as tar does it.
func (a *archiver) content(fd int, size int64) error {
	for offset := int64(0); offset < size; {
		if err := ended(a.ctx); err != nil {
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
