package files

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sandpool/agent/internal/rpcerror"
)

// Reasons that are stable parts of the contract; docs/errors.md says when each is used.
const (
	reasonInvalidField     = "INVALID_FIELD"
	reasonPathInvalid      = "PATH_INVALID"
	reasonUserUnknown      = "USER_UNKNOWN"
	reasonNotFound         = "FILE_NOT_FOUND"
	reasonExists           = "FILE_ALREADY_EXISTS"
	reasonIsDirectory      = "IS_A_DIRECTORY"
	reasonNotDirectory     = "NOT_A_DIRECTORY"
	reasonNotFile          = "NOT_A_FILE"
	reasonNotEmpty         = "DIRECTORY_NOT_EMPTY"
	reasonNotPermitted     = "FILE_NOT_PERMITTED"
	reasonDiskFull         = "DISK_FULL"
	reasonTooLarge         = "FILE_TOO_LARGE"
	reasonFileLimit        = "FILE_LIMIT"
	reasonMemoryLimit      = "MEMORY_LIMIT"
	reasonEtagMismatch     = "ETAG_MISMATCH"
	reasonSizeMismatch     = "SIZE_MISMATCH"
	reasonOffsetOutOfRange = "OFFSET_OUT_OF_RANGE"
	reasonUploadNotFound   = "UPLOAD_NOT_FOUND"
	reasonUploadConflict   = "UPLOAD_CONFLICT"
	reasonUploadLimit      = "UPLOAD_LIMIT"
	reasonArchiveInvalid   = "ARCHIVE_INVALID"
	reasonWatchLimit       = "WATCH_LIMIT"
)

// A status travels in headers, of which clients take 8 KiB: of a longer path the end is left out of an error.
const maxShownPath = 512

// refusal is an error that already says what callers are told.
type refusal struct {
	code   codes.Code
	reason string
	text   string
}

func (r *refusal) Error() string { return r.text }

var (
	errIsDirectory = &refusal{codes.FailedPrecondition, reasonIsDirectory, "is a folder"}
	errNotFile     = &refusal{codes.FailedPrecondition, reasonNotFile, "is no regular file"}
	errPseudo      = &refusal{codes.FailedPrecondition, reasonNotPermitted, "is the kernel's own, and no place for files"}
	errOwnProcess  = &refusal{codes.FailedPrecondition, reasonNotPermitted, "belongs to the agent itself"}
	errTooDeep     = &refusal{codes.FailedPrecondition, reasonNotPermitted, "has more folders in one another than can be followed; use a command"}
	errIntoItself  = &refusal{codes.InvalidArgument, reasonPathInvalid, "a folder cannot be put into itself"}
)

// kernelErrors says what the kernel's errors mean to a caller. The first that fits counts.
var kernelErrors = []struct {
	err syscall.Errno
	refusal
}{
	{unix.ENOENT, refusal{codes.NotFound, reasonNotFound, "does not exist"}},
	{unix.EEXIST, refusal{codes.AlreadyExists, reasonExists, "is there already"}},
	{unix.ENOTDIR, refusal{codes.FailedPrecondition, reasonNotDirectory, "is no folder, or leads through something that is none"}},
	{unix.EISDIR, *errIsDirectory},
	{unix.ENOTEMPTY, refusal{codes.FailedPrecondition, reasonNotEmpty, "is a folder that is not empty; set recursive to remove all that is in it"}},
	{unix.ENOSPC, refusal{codes.ResourceExhausted, reasonDiskFull, "the sandbox's disk is full: remove something, or give sandboxes a larger one"}},
	{unix.EDQUOT, refusal{codes.ResourceExhausted, reasonDiskFull, "the sandbox's disk is full: remove something, or give sandboxes a larger one"}},
	{unix.EFBIG, refusal{codes.ResourceExhausted, reasonTooLarge, "would be larger than a file of this sandbox may be"}},
	{unix.EMFILE, refusal{codes.ResourceExhausted, reasonFileLimit, "too many open files"}},
	{unix.ENFILE, refusal{codes.ResourceExhausted, reasonFileLimit, "too many open files"}},
	{unix.ENOMEM, refusal{codes.ResourceExhausted, reasonMemoryLimit, "not enough memory in the sandbox"}},
	{unix.ENAMETOOLONG, refusal{codes.InvalidArgument, reasonPathInvalid, "has a name longer than the file system takes (255 bytes)"}},
	{unix.EACCES, refusal{codes.FailedPrecondition, reasonNotPermitted, "is not permitted"}},
	{unix.EPERM, refusal{codes.FailedPrecondition, reasonNotPermitted, "is not permitted"}},
	{unix.EROFS, refusal{codes.FailedPrecondition, reasonNotPermitted, "lies in a file system that is read-only"}},
	{unix.EBUSY, refusal{codes.FailedPrecondition, reasonNotPermitted, "is in use, as a mount for instance"}},
	{unix.ETXTBSY, refusal{codes.FailedPrecondition, reasonNotPermitted, "is a program that runs"}},
	{unix.EAGAIN, refusal{codes.FailedPrecondition, reasonNotPermitted, "is held by another process"}},
	{unix.ELOOP, refusal{codes.FailedPrecondition, reasonNotPermitted, "leads through too many symbolic links, or one that may not be followed"}},
	{unix.EOPNOTSUPP, refusal{codes.FailedPrecondition, reasonNotPermitted, "lies in a file system that cannot do this"}},
}

// failure turns whatever went wrong with a path into what the caller is told. The path of a *fs.PathError is more exact
// than the one that was asked for.
func failure(path string, err error) error {
	if err == nil {
		return nil
	}
	if _, ready := status.FromError(err); ready {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	if inner := (*fs.PathError)(nil); errors.As(err, &inner) {
		path, err = inner.Path, inner.Err
	}
	if known := (*refusal)(nil); errors.As(err, &known) {
		return known.about(path)
	}
	for _, known := range kernelErrors {
		if errors.Is(err, known.err) {
			return known.about(path)
		}
	}
	// Of a disk that is broken, for instance: the kernel's words are all that is known.
	slog.Error("a file operation failed", "error", err)
	return (&refusal{codes.FailedPrecondition, reasonNotPermitted, err.Error()}).about(path)
}

// about makes the error for one path.
func (r *refusal) about(path string) error {
	shown := printable(path)
	if len(shown) > maxShownPath {
		shown = strings.ToValidUTF8(shown[:maxShownPath], "") + "…"
	}
	if r.code == codes.InvalidArgument {
		return rpcerror.BadField(r.reason, "path", "%s: %s", shown, r.text)
	}
	return rpcerror.About(r.code, r.reason, shown, "%s: %s", shown, r.text)
}

// at says where an error happened, unless it says so itself.
func at(path string, err error) error {
	if err == nil {
		return nil
	}
	if inner := (*fs.PathError)(nil); errors.As(err, &inner) {
		return err
	}
	return &fs.PathError{Op: "use", Path: path, Err: err}
}

// printable is a name for an answer: bytes that are not UTF-8 are replaced.
func printable(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }
