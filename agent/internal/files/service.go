// Package files implements FileService of sandpool.v1: access to the files of the sandbox.
//
// The agent is root in the container and works with these rights. Hostile code can run in the sandbox and control its
// files. So the package never blocks on a named pipe or a device, does not assume that a name is valid text or that a
// directory is small or shallow, and follows a symbolic link only where the contract specifies it: directories are held
// open, and names are looked up in them one at a time.
package files

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
	"sandpool/agent/internal/users"

	"golang.org/x/sys/unix"
)

// Options are the parameters of a service.
type Options struct {
	Users users.Database
	// DefaultUser returns the default owner of created files, in the form of users.Database.Lookup.
	DefaultUser func() string
	// Stopping is closed when the agent starts to stop; watches end then.
	Stopping <-chan struct{}
}

// Service implements FileService. Its methods can be called at any time and concurrently.
type Service struct {
	sandpoolv1.UnimplementedFileServiceServer

	users       users.Database
	defaultUser func() string
	stopping    <-chan struct{}
	buffers     *buffers
	uploads     *uploads
	watches     chan struct{}
}

// New returns a service.
func New(options Options) *Service {
	return &Service{
		users:       options.Users,
		defaultUser: options.DefaultUser,
		stopping:    options.Stopping,
		buffers:     newBuffers(),
		uploads:     newUploads(),
		watches:     make(chan struct{}, maxWatches),
	}
}

// owner is the owner of created objects.
type owner struct {
	uid, gid int
	// explicit is set if the request contains the owner.
	explicit bool
}

// owner resolves the owner of a request. An empty specification means the image's user.
func (s *Service) owner(field, spec string) (owner, error) {
	explicit := spec != ""
	if !explicit {
		spec = s.defaultUser()
	}
	identity, err := s.users.Lookup(spec)
	if err != nil {
		return owner{}, rpcerror.BadField(reasonUserUnknown, field, "%v", err)
	}
	return owner{uid: int(identity.UID), gid: int(identity.GID), explicit: explicit}, nil
}

// makeParents returns a function that creates missing directories on the way to a path.
func makeParents(mode uint32, owner owner) func(dir int, name string) error {
	return func(dir int, name string) error {
		if isPseudo(fileSystem(dir)) {
			return errPseudo
		}
		return makeDirectory(dir, name, mode, owner)
	}
}

// makeDirectory creates one directory. The error is EEXIST if an object exists.
func makeDirectory(dir int, name string, mode uint32, owner owner) error {
	if err := ignoringEINTR(func() error { return unix.Mkdirat(dir, name, 0o700) }); err != nil {
		return err
	}
	fd, err := openAt(dir, name, openDirectory, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, owner.uid, owner.gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

const parentMode = 0o755

// StatFile implements FileService.
func (s *Service) StatFile(_ context.Context, request *sandpoolv1.StatFileRequest) (*sandpoolv1.StatFileResponse, error) {
	path, err := cleanPath("path", request.GetPath())
	if err != nil {
		return nil, err
	}
	p, err := search{follow: request.GetFollowSymlinks()}.find(path)
	if err != nil {
		return nil, failure(path, err)
	}
	defer p.close()
	info, err := s.describer().location(p, path)
	if err != nil {
		return nil, failure(path, err)
	}
	return &sandpoolv1.StatFileResponse{File: info}, nil
}

// MakeDirectory implements FileService.
func (s *Service) MakeDirectory(
	_ context.Context, request *sandpoolv1.MakeDirectoryRequest,
) (*sandpoolv1.MakeDirectoryResponse, error) {
	path, err := cleanPath("path", request.GetPath())
	if err != nil {
		return nil, err
	}
	owner, err := s.owner("owner", request.GetOwner())
	if err != nil {
		return nil, err
	}
	mode := uint32(parentMode)
	if request.Mode != nil {
		mode = request.GetMode() & permissionBits
	}
	info, err := s.makeDirectory(path, mode, owner)
	if err != nil {
		return nil, failure(path, err)
	}
	return &sandpoolv1.MakeDirectoryResponse{File: info}, nil
}

func (s *Service) makeDirectory(path string, mode uint32, owner owner) (*sandpoolv1.FileInfo, error) {
	p, err := search{follow: true, make: makeParents(mode, owner)}.find(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if err := makeParents(mode, owner)(p.dir, p.name); err != nil && err != unix.EEXIST {
		if stat, statErr := p.stat(); statErr != nil || !isDirectory(stat) {
			return nil, err
		}
	}
	stat, err := p.stat()
	if err != nil {
		return nil, err
	}
	if !isDirectory(stat) {
		return nil, unix.EEXIST
	}
	return s.describer().info(p.dir, p.name, path, stat)
}

// contextError returns the error of a call whose context has ended, otherwise nil.
func contextError(ctx context.Context) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// errTarget returns the error of a stream in which the target is not in the first message only.
func errTarget() error {
	return rpcerror.BadField(reasonInvalidField, "target", "must be set in the first message only")
}

func exhausted(reason, format string, args ...any) error {
	return rpcerror.New(codes.ResourceExhausted, reason, format, args...)
}
