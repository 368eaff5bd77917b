package files

import (
	"bytes"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

const (
	// Large enough that the overhead of a message is small compared with its content.
	largeBuffer = 256 << 10
	smallBuffer = 64 << 10
	// Number of streams that use large buffers at once. With the copies that wait to be sent they use about 8 MiB.
	largeBuffers = 16
)

// buffers allocates buffers for reading files. The number of large buffers is limited, because a stream whose reader
// has stopped keeps its buffer.
type buffers struct {
	large chan struct{}
}

func newBuffers() *buffers { return &buffers{large: make(chan struct{}, largeBuffers)} }

// get returns a buffer. done must be called when the buffer is no longer used.
func (b *buffers) get() (buffer []byte, done func()) {
	select {
	case b.large <- struct{}{}:
		return make([]byte, largeBuffer), func() { <-b.large }
	default:
		return make([]byte, smallBuffer), func() {}
	}
}

// ReadFile implements FileService.
func (s *Service) ReadFile(
	request *sandpoolv1.ReadFileRequest, stream grpc.ServerStreamingServer[sandpoolv1.ReadFileResponse],
) error {
	path, err := cleanPath("path", request.GetPath())
	if err != nil {
		return err
	}
	if request.GetOffset() < 0 || request.GetLength() < 0 {
		return rpcerror.BadField(reasonInvalidField, "offset", "offset and length must not be negative")
	}
	p, err := search{follow: true}.find(path)
	if err != nil {
		return failure(path, err)
	}
	fd, stat, err := openFile(p)
	if err != nil {
		p.close()
		return failure(path, err)
	}
	defer unix.Close(fd)
	info, err := s.describer().info(p.dir, p.name, path, stat)
	p.close()
	if err != nil {
		return failure(path, err)
	}
	if err := checkRead(request, fd, stat, path); err != nil {
		return err
	}
	if err := stream.Send(&sandpoolv1.ReadFileResponse{Part: &sandpoolv1.ReadFileResponse_File{File: info}}); err != nil {
		return err
	}
	length := int64(math.MaxInt64)
	if request.Length != nil {
		length = request.GetLength()
	}
	return failure(path, s.sendFile(fd, request.GetOffset(), length, stream))
}

func checkRead(request *sandpoolv1.ReadFileRequest, fd int, stat *unix.Stat_t, path string) error {
	if requested := request.GetEtag(); requested != "" && requested != etag(stat) {
		return rpcerror.About(codes.Aborted, reasonEtagMismatch, printable(path),
			"%s: the current etag is %q, the request contains %q; read the file again from the start",
			printable(path), etag(stat), requested)
	}
	// Files whose content the kernel generates on read have size 0.
	if offset := request.GetOffset(); offset > stat.Size && !isPseudo(fileSystem(fd)) {
		return rpcerror.About(codes.OutOfRange, reasonOffsetOutOfRange, printable(path),
			"offset %d is after the end of the file, which has %d bytes; use an offset from 0 to %d", offset, stat.Size, stat.Size)
	}
	return nil
}

// openFile opens a regular file for reading. Other objects are not opened, because opening them can have side effects.
func openFile(p *location) (fd int, stat *unix.Stat_t, err error) {
	if stat, err = p.stat(); err != nil {
		return -1, nil, err
	}
	if err = mustBeFile(stat); err != nil {
		return -1, nil, err
	}
	if isOwnSecret(p) {
		return -1, nil, errOwnProcess
	}
	if fd, err = openAt(p.dir, p.name, openRead, 0); err != nil {
		return -1, nil, err
	}
	// The object can have been replaced in between.
	if err = unix.Fstat(fd, stat); err == nil {
		err = mustBeFile(stat)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, stat, nil
}

// isOwnSecret reports whether a location is a file of /proc with the memory or the environment of the agent. The kernel
// protects these from processes of the sandbox, but not from the agent itself.
func isOwnSecret(p *location) bool {
	if fileSystem(p.dir) != unix.PROC_SUPER_MAGIC {
		return false
	}
	switch p.name {
	case "mem", "environ", "auxv", "maps", "smaps", "smaps_rollup", "numa_maps", "pagemap", "syscall", "stack":
	default:
		return false
	}
	fd, err := openAt(p.dir, "status", openRead, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buffer := make([]byte, 1024)
	n, err := unix.Pread(fd, buffer, 0)
	if err != nil {
		return true
	}
	return bytes.Contains(buffer[:n], []byte("\nTgid:\t"+strconv.Itoa(os.Getpid())+"\n"))
}

// sendFile sends up to length bytes from an offset. It reads only as fast as the client receives.
func (s *Service) sendFile(
	fd int, offset, length int64, stream grpc.ServerStreamingServer[sandpoolv1.ReadFileResponse],
) error {
	buffer, done := s.buffers.get()
	defer done()
	data := &sandpoolv1.ReadFileResponse_Data{}
	response := &sandpoolv1.ReadFileResponse{Part: data}
	for length > 0 {
		if err := contextError(stream.Context()); err != nil {
			return err
		}
		n, err := readAt(fd, buffer[:min(int64(len(buffer)), length)], offset)
		if err != nil || n == 0 {
			return err
		}
		// Send has copied the bytes when it returns, so the buffer can be reused.
		data.Data = buffer[:n]
		if err := stream.Send(response); err != nil {
			return err
		}
		offset += int64(n)
		length -= int64(n)
	}
	return nil
}

func readAt(fd int, buffer []byte, offset int64) (n int, err error) {
	err = ignoringEINTR(func() (err error) { n, err = unix.Pread(fd, buffer, offset); return })
	return max(n, 0), err
}
