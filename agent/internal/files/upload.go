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
	// How long an upload is kept after its last byte.
	uploadTime = time.Hour
	maxUploads = 256
)

// upload is a file on its way. What has arrived is in a scratch file beside the place where it shall be, so that the
// kernel can move it there, and so that it takes the disk of the sandbox and no memory.
type upload struct {
	id   string
	path string
	mode sandpoolv1.WriteMode

	// mu is held over one step of one call.
	mu sync.Mutex
	// call counts the calls that have taken the upload up. The last one has it: one before may be of a client or a
	// server that is gone, of which the agent has not heard yet.
	call     int
	target   target
	scratch  *scratch
	received int64
	lastByte time.Time
	timer    *time.Timer
	over     bool
}

// target is what a call says of the file to write.
type target struct {
	owner owner
	mode  *uint32
	size  *int64
}

// uploads are those with an identifier, which outlive their calls.
type uploads struct {
	mu   sync.Mutex
	byID map[string]*upload
	// now is the clock.
	now func() time.Time
}

func newUploads() *uploads { return &uploads{byID: make(map[string]*upload), now: time.Now} }

// session is one call's hold of an upload.
type session struct {
	service *Service
	upload  *upload
	call    int
}

// begin takes an upload up or starts one.
func (s *Service) begin(wanted *sandpoolv1.WriteFileTarget) (*session, error) {
	name, err := cleanPath("target.path", wanted.GetPath())
	if err != nil {
		return nil, err
	}
	owner, err := s.owner("target.owner", wanted.GetOwner())
	if err != nil {
		return nil, err
	}
	if wanted.GetOffset() < 0 || wanted.GetSize() < 0 {
		return nil, rpcerror.BadField(reasonInvalidField, "target.offset", "neither it nor size may be negative")
	}
	up, err := s.uploads.get(wanted.GetUploadId(), name, wanted.GetWriteMode())
	if err != nil {
		return nil, err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.over {
		return nil, conflict(up.id, "has ended this moment: ask for it again")
	}
	up.target = target{owner: owner, mode: wanted.Mode, size: wanted.Size}
	if err := up.prepare(wanted.GetOffset()); err != nil {
		if up.scratch == nil {
			s.uploads.drop(up)
		}
		return nil, failure(name, err)
	}
	up.call++
	up.lastByte = s.uploads.now()
	return &session{service: s, upload: up, call: up.call}, nil
}

// get finds an upload or registers a new one, which has no scratch file yet. One without identifier is known to its call
// alone.
func (u *uploads) get(id, name string, mode sandpoolv1.WriteMode) (*upload, error) {
	if mode == sandpoolv1.WriteMode_WRITE_MODE_UNSPECIFIED {
		mode = sandpoolv1.WriteMode_WRITE_MODE_REPLACE
	}
	fresh := &upload{id: id, path: name, mode: mode, lastByte: u.now()}
	if id == "" {
		return fresh, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	known := u.byID[id]
	switch {
	case known == nil && len(u.byID) >= maxUploads:
		return nil, exhausted(reasonUploadLimit, "%d uploads are open in this sandbox already: finish some, or wait until they expire", maxUploads)
	case known == nil:
		u.byID[id] = fresh
		fresh.timer = time.AfterFunc(uploadTime, func() { u.expire(fresh) })
		return fresh, nil
	case known.path != name || known.mode != mode:
		return nil, conflict(id, fmt.Sprintf("is one of %q in another way: use another upload_id", printable(known.path)))
	}
	return known, nil
}

func conflict(id, text string) error {
	return rpcerror.About(codes.FailedPrecondition, reasonUploadConflict, id, "upload %q %s", id, text)
}

// expire throws an upload away if nothing has arrived for long.
func (u *uploads) expire(up *upload) {
	up.mu.Lock()
	defer up.mu.Unlock()
	if left := up.lastByte.Add(uploadTime).Sub(u.now()); left > 0 && !up.over {
		up.timer.Reset(left)
		return
	}
	u.drop(up)
}

// drop forgets an upload and throws away what has arrived. Called with its mu held.
func (u *uploads) drop(up *upload) {
	if up.over {
		return
	}
	up.over = true
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

// prepare makes the scratch file or sets an earlier one to go on at an offset. Called with mu held.
func (up *upload) prepare(offset int64) error {
	if offset > up.received {
		return rpcerror.About(codes.OutOfRange, reasonOffsetOutOfRange, printable(up.path),
			"only %d bytes have arrived: go on at that offset, not at %d", up.received, offset)
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

// checkDestination refuses at once what could only fail in the end.
func (up *upload) checkDestination() error {
	p, err := search{follow: true}.find(up.path)
	if err == unix.ENOENT {
		return nil // A folder on the way is missing, and will be made.
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

// nearest is a place in the folder of a path, or in the nearest one above it that is there: parents are made when the
// file is, so that a call that breaks leaves none.
func nearest(name string) (*place, error) {
	for {
		p, err := search{follow: true}.toChange(name)
		if err != unix.ENOENT || name == "/" {
			return p, err
		}
		name = path.Dir(name)
	}
}

// step does something with the upload, unless another call has taken it up meanwhile.
func (c *session) step(do func(up *upload) error) error {
	up := c.upload
	up.mu.Lock()
	defer up.mu.Unlock()
	switch {
	case up.call != c.call:
		return conflict(up.id, "was taken up by another call")
	case up.over:
		return rpcerror.About(codes.NotFound, reasonUploadNotFound, up.id, "upload %q has expired", up.id)
	}
	return failure(up.path, do(up))
}

// write takes the next bytes, which come in pieces.
func (c *session) write(length int64, pieces iter.Seq[[]byte]) error {
	return c.step(func(up *upload) error {
		if size := up.target.size; size != nil && up.received+length > *size {
			return up.wrongSize(up.received+length, "more than")
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

func (up *upload) wrongSize(got int64, relation string) error {
	return rpcerror.About(codes.FailedPrecondition, reasonSizeMismatch, printable(up.path),
		"%d bytes have arrived, %s the %d that were announced", got, relation, *up.target.size)
}

// received is how many bytes have arrived.
func (c *session) received() (count int64, err error) {
	err = c.step(func(up *upload) error { count = up.received; return nil })
	return count, err
}

// leave ends the hold: an upload without identifier is thrown away unless it was finished.
func (c *session) leave() {
	up := c.upload
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.id == "" {
		c.service.uploads.drop(up)
	}
}

// finish makes the file of what has arrived.
func (c *session) finish() (info *sandpoolv1.FileInfo, err error) {
	err = c.step(func(up *upload) error {
		if size := up.target.size; size != nil && up.received != *size {
			return up.wrongSize(up.received, "not")
		}
		p, err := search{follow: true, make: makeParents(parentMode, up.target.owner)}.toChange(up.path)
		if err != nil {
			return err
		}
		defer p.close()
		if err := up.put(p); err != nil {
			return err
		}
		if info, err = c.service.describer().place(p, up.path); err != nil {
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
		return nil, noUpload(request.GetUploadId())
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.over {
		return nil, noUpload(request.GetUploadId())
	}
	return &sandpoolv1.GetUploadResponse{
		ReceivedBytes: up.received,
		Path:          printable(up.path),
		ExpireTime:    timestamppb.New(up.lastByte.Add(uploadTime)),
	}, nil
}

func noUpload(id string) error {
	return rpcerror.About(codes.NotFound, reasonUploadNotFound, id,
		"upload %q is not known: it was finished, has expired, or nothing of it has arrived", id)
}
