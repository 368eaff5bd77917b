package files

import (
	"context"
	"fmt"
	"iter"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

const (
	// Time for which an upload is retained after its last byte.
	uploadTime = time.Hour
	maxUploads = 256
)

// upload is a file that is being received. The received bytes are in a scratch file in the directory of the final path,
// so that the kernel can rename it, and so that it uses disk space of the sandbox instead of memory.
type upload struct {
	id   string
	path string
	mode sandpoolv1.WriteMode

	// mu is held during one step of a call.
	mu sync.Mutex
	// call counts the calls that opened the upload. Only the last call can use it. An earlier call can belong to a
	// client or a server that disconnected without the agent's knowledge.
	call     int
	target   target
	scratch  *scratch
	received int64
	lastByte time.Time
	timer    *time.Timer
	finished bool
}

// target contains the parameters of the file to write.
type target struct {
	owner owner
	mode  *uint32
	size  *int64
}

// uploads contains the uploads with an identifier. They outlive their calls.
type uploads struct {
	mu   sync.Mutex
	byID map[string]*upload
	// now is the clock.
	now func() time.Time
}

func newUploads() *uploads { return &uploads{byID: make(map[string]*upload), now: time.Now} }

// uploadCall is a call that uses an upload.
type uploadCall struct {
	service *Service
	upload  *upload
	call    int
}

// openUpload resumes an upload or starts a new one.
func (s *Service) openUpload(requested *sandpoolv1.WriteFileTarget) (*uploadCall, error) {
	name, err := cleanPath("target.path", requested.GetPath())
	if err != nil {
		return nil, err
	}
	owner, err := s.owner("target.owner", requested.GetOwner())
	if err != nil {
		return nil, err
	}
	if requested.GetOffset() < 0 || requested.GetSize() < 0 {
		return nil, rpcerror.BadField(reasonInvalidField, "target.offset", "offset and size must not be negative")
	}
	up, err := s.uploads.get(requested.GetUploadId(), name, requested.GetWriteMode())
	if err != nil {
		return nil, err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.finished {
		return nil, errConflict(up.id, "was finished or expired while this call started; call GetUpload and try again")
	}
	up.target = target{owner: owner, mode: requested.Mode, size: requested.Size}
	if err := up.prepare(requested.GetOffset()); err != nil {
		if up.scratch == nil {
			s.uploads.drop(up)
		}
		return nil, failure(name, err)
	}
	up.call++
	up.lastByte = s.uploads.now()
	return &uploadCall{service: s, upload: up, call: up.call}, nil
}

// get returns an upload, or registers a new one without a scratch file. An upload without identifier is not registered.
func (u *uploads) get(id, name string, mode sandpoolv1.WriteMode) (*upload, error) {
	if mode == sandpoolv1.WriteMode_WRITE_MODE_UNSPECIFIED {
		mode = sandpoolv1.WriteMode_WRITE_MODE_REPLACE
	}
	started := &upload{id: id, path: name, mode: mode, lastByte: u.now()}
	if id == "" {
		return started, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	known := u.byID[id]
	switch {
	case known == nil && len(u.byID) >= maxUploads:
		return nil, exhausted(reasonUploadLimit,
			"%d uploads are open in this sandbox, which is the limit; finish one or wait until one expires", maxUploads)
	case known == nil:
		u.byID[id] = started
		started.timer = time.AfterFunc(uploadTime, func() { u.expire(started) })
		return started, nil
	case known.path != name || known.mode != mode:
		return nil, errConflict(id, fmt.Sprintf("writes %q with another path or write_mode; use another upload_id", shorten(known.path)))
	}
	return known, nil
}

func errConflict(id, text string) error {
	return rpcerror.About(codes.FailedPrecondition, reasonUploadConflict, id, "upload %q %s", id, text)
}

// expire discards an upload that has received no bytes for uploadTime.
func (u *uploads) expire(up *upload) {
	up.mu.Lock()
	defer up.mu.Unlock()
	if left := up.lastByte.Add(uploadTime).Sub(u.now()); left > 0 && !up.finished {
		up.timer.Reset(left)
		return
	}
	u.drop(up)
}

// drop removes an upload and its scratch file. up.mu must be held.
func (u *uploads) drop(up *upload) {
	if up.finished {
		return
	}
	up.finished = true
	if up.scratch != nil {
		up.scratch.close()
	}
	if up.id == "" {
		return
	}
	up.timer.Stop()
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.byID, up.id)
}

// prepare creates the scratch file, or truncates the existing one to an offset. mu must be held.
func (up *upload) prepare(offset int64) error {
	if offset > up.received {
		return rpcerror.About(codes.OutOfRange, reasonOffsetOutOfRange, printable(up.path),
			"offset %d is after the %d received bytes; continue at offset %d", offset, up.received, up.received)
	}
	if up.scratch != nil {
		if offset < up.received {
			if err := unix.Ftruncate(up.scratch.fd, offset); err != nil {
				return err
			}
			up.received = offset
		}
		return nil
	}
	if err := up.checkDestination(); err != nil {
		return err
	}
	p, err := nearest(up.path)
	if err != nil {
		return err
	}
	defer p.close()
	up.scratch, err = newScratch(p.dir)
	return err
}

// checkDestination returns errors early that would otherwise occur only at the end.
func (up *upload) checkDestination() error {
	p, err := search{follow: true}.find(up.path)
	if err == unix.ENOENT {
		return nil // A missing directory on the way is created later.
	}
	if err != nil {
		return err
	}
	defer p.close()
	stat, err := p.stat()
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if up.mode == sandpoolv1.WriteMode_WRITE_MODE_CREATE {
		return unix.EEXIST
	}
	return mustBeFile(stat)
}

// nearest returns a location in the directory of a path, or in its nearest existing parent. Missing directories are
// created together with the file, so that a broken call leaves none.
func nearest(name string) (*location, error) {
	for {
		p, err := search{follow: true}.toChange(name)
		if err != unix.ENOENT || name == "/" {
			return p, err
		}
		name = path.Dir(name)
	}
}

// do calls action with the upload, unless another call has opened it.
func (c *uploadCall) do(action func(up *upload) error) error {
	up := c.upload
	up.mu.Lock()
	defer up.mu.Unlock()
	switch {
	case up.call != c.call:
		return errConflict(up.id, "was resumed by another call; use one call at a time")
	case up.finished:
		return rpcerror.About(codes.NotFound, reasonUploadNotFound, up.id,
			"upload %q has expired; start it again", up.id)
	}
	return failure(up.path, action(up))
}

// write writes the next bytes, which are passed in pieces.
func (c *uploadCall) write(length int64, pieces iter.Seq[[]byte]) error {
	return c.do(func(up *upload) error {
		if size := up.target.size; size != nil && up.received+length > *size {
			return up.wrongSize(up.received + length)
		}
		offset := up.received
		for piece := range pieces {
			if err := up.scratch.write(piece, offset); err != nil {
				return err
			}
			offset += int64(len(piece))
		}
		up.received = offset
		up.lastByte = c.service.uploads.now()
		return nil
	})
}

func (up *upload) wrongSize(got int64) error {
	return rpcerror.About(codes.FailedPrecondition, reasonSizeMismatch, printable(up.path),
		"%d bytes were received, but target.size is %d; continue the upload or start it again", got, *up.target.size)
}

// received returns the number of received bytes.
func (c *uploadCall) received() (count int64, err error) {
	err = c.do(func(up *upload) error { count = up.received; return nil })
	return count, err
}

// release ends the use of the upload by this call. An upload without identifier is discarded unless it was finished.
func (c *uploadCall) release() {
	up := c.upload
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.id == "" {
		c.service.uploads.drop(up)
	}
}

// finish creates the file from the received bytes.
func (c *uploadCall) finish() (info *sandpoolv1.FileInfo, err error) {
	err = c.do(func(up *upload) error {
		if size := up.target.size; size != nil && up.received != *size {
			return up.wrongSize(up.received)
		}
		p, err := search{follow: true, make: makeParents(parentMode, up.target.owner)}.toChange(up.path)
		if err != nil {
			return err
		}
		defer p.close()
		if err := up.put(p); err != nil {
			return err
		}
		if info, err = c.service.describer().location(p, up.path); err != nil {
			return err
		}
		c.service.uploads.drop(up)
		return nil
	})
	return info, err
}

// GetUpload implements FileService.
func (s *Service) GetUpload(
	_ context.Context, request *sandpoolv1.GetUploadRequest,
) (*sandpoolv1.GetUploadResponse, error) {
	s.uploads.mu.Lock()
	up := s.uploads.byID[request.GetUploadId()]
	s.uploads.mu.Unlock()
	if up == nil {
		return nil, errUploadNotFound(request.GetUploadId())
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.finished {
		return nil, errUploadNotFound(request.GetUploadId())
	}
	return &sandpoolv1.GetUploadResponse{
		ReceivedBytes: up.received,
		Path:          printable(up.path),
		ExpireTime:    timestamppb.New(up.lastByte.Add(uploadTime)),
	}, nil
}

func errUploadNotFound(id string) error {
	return rpcerror.About(codes.NotFound, reasonUploadNotFound, id,
		"upload %q does not exist: it was finished, it expired, or no bytes were received; start it again", id)
}
