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
	// Large enough that the cost of a message is small against that of its bytes on each hop.
	largeBuffer = 256 << 10
	smallBuffer = 64 << 10
	// As many streams work with large buffers at once; with the copies that wait to be sent they take about 8 MiB.
	largeBuffers = 16
)

// buffers are what files are read into. Only so many are large, for a stream whose reader has stopped keeps its own.
type buffers struct {
	large chan struct{}
}

func newBuffers() *buffers { return &buffers{large: make(chan struct{}, largeBuffers)} }

// get makes a buffer; done is to be called when it is not needed any more.
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
		return rpcerror.BadField(reasonInvalidField, "offset", "neither it nor length may be negative")
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
	if wanted := request.GetEtag(); wanted != "" && wanted != etag(stat) {
		return rpcerror.About(codes.Aborted, reasonEtagMismatch, printable(path),
			"the file is not the one that was read before: begin again without the etag")
	}
	// What the kernel makes up as it is read has no size.
	if offset := request.GetOffset(); offset > stat.Size && !isPseudo(fileSystem(fd)) {
		return rpcerror.About(codes.OutOfRange, reasonOffsetOutOfRange, printable(path),
			"offset %d lies past the end of the file at %d", offset, stat.Size)
	}
	return nil
}

// openFile opens a regular file for reading. Nothing else is opened at all, for that alone can have an effect.
func openFile(p *place) (fd int, stat *unix.Stat_t, err error) {
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
	// Another may be there by now.
	if err = unix.Fstat(fd, stat); err == nil {
		err = mustBeFile(stat)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, stat, nil
}

// isOwnSecret is whether a place is a file of /proc that holds the agent's memory or environment. The kernel keeps them
// from the sandbox's processes, but not from the agent itself.
func isOwnSecret(p *place) bool {
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

// sendFile sends up to length bytes from an offset on. It reads no further than the caller has taken.
func (s *Service) sendFile(
	fd int, offset, length int64, stream grpc.ServerStreamingServer[sandpoolv1.ReadFileResponse],
) error {
	buffer, done := s.buffers.get()
	defer done()
	data := &sandpoolv1.ReadFileResponse_Data{}
	response := &sandpoolv1.ReadFileResponse{Part: data}
	for length > 0 {
		if err := ended(stream.Context()); err != nil {
			return err
		}
		n, err := readAt(fd, buffer[:min(int64(len(buffer)), length)], offset)
		if err != nil || n == 0 {
			return err
		}
		// Send has copied the bytes when it returns.
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
