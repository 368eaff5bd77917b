// Package files is what the agent does with the files of its sandbox: FileService of sandpool.v1.
//
// The agent is root in the container and works there with the rights that this gives. What the files of a sandbox are is
// up to the hostile code in it, so nothing here waits on a named pipe or a device, trusts a name to be text or a folder to
// be small or shallow, or follows a symbolic link anywhere but where the contract says so: folders are held open, and
// names are looked up in them one at a time.
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

// Options are what a service is made of.
type Options struct {
	Users users.Database
	// DefaultUser is who owns what is made for nobody in particular, as users.Database.Lookup takes it.
	DefaultUser func() string
	// Stopping is closed when the agent begins to stop: watches end then.
	Stopping <-chan struct{}
}

// Service implements FileService. Its methods may be called at any time and concurrently.
type Service struct {
	sandpoolv1.UnimplementedFileServiceServer

	users       users.Database
	defaultUser func() string
	stopping    <-chan struct{}
	buffers     *buffers
	uploads     *uploads
	watches     chan struct{}
}

// New makes a service.
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

// owner is whom something belongs to that is made.
type owner struct {
	uid, gid int
	// given is whether the caller said so.
	given bool
}

// owner resolves the owner of a request, empty for the image's user.
func (s *Service) owner(field, spec string) (owner, error) {
	given := spec != ""
	if !given {
		spec = s.defaultUser()
	}
	identity, err := s.users.Lookup(spec)
	if err != nil {
		return owner{}, rpcerror.BadField(reasonUserUnknown, field, "%v", err)
	}
	return owner{uid: int(identity.UID), gid: int(identity.GID), given: given}, nil
}

// makeParents is how missing folders on the way to a path are made.
func makeParents(mode uint32, owner owner) func(dir int, name string) error {
	return func(dir int, name string) error {
		if isPseudo(fileSystem(dir)) {
			return errPseudo
		}
		return makeFolder(dir, name, mode, owner)
	}
}

// makeFolder makes one folder. EEXIST if something is there.
func makeFolder(dir int, name string, mode uint32, owner owner) error {
	if err := ignoringEINTR(func() error { return unix.Mkdirat(dir, name, 0o700) }); err != nil {
		return err
	}
	fd, err := openAt(dir, name, openFolder, 0)
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
	p, err := search{follow: request.GetFollow()}.find(path)
	if err != nil {
		return nil, failure(path, err)
	}
	defer p.close()
	info, err := s.describer().place(p, path)
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
		if stat, statErr := p.stat(); statErr != nil || !isFolder(stat) {
			return nil, err
		}
	}
	stat, err := p.stat()
	if err != nil {
		return nil, err
	}
	if !isFolder(stat) {
		return nil, unix.EEXIST
	}
	return s.describer().info(p.dir, p.name, path, stat)
}

// ended is the error of a call whose context is over, else nil.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// missingFirst is the error of a stream whose first message does not say what it is about.
func missingFirst() error {
	return rpcerror.BadField(reasonInvalidField, "target", "comes first, and once")
}

func exhausted(reason, format string, args ...any) error {
	return rpcerror.New(codes.ResourceExhausted, reason, format, args...)
}
