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

// Reasons of errors. They are a stable part of the contract; docs/reference/errors.md describes when each is used.
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

// Maximum length of a path in an error. A status is sent in HTTP/2 headers, of which clients accept 8 KiB, so longer
// paths are truncated.
const maxShownPath = 512

// pathError is an error with the code, the reason and the text for the caller. The text is preceded by the path.
type pathError struct {
	code   codes.Code
	reason string
	text   string
}

func (e *pathError) Error() string { return e.text }

var (
	errIsDirectory = &pathError{codes.FailedPrecondition, reasonIsDirectory, "is a directory; use the path of a file"}
	errNotFile     = &pathError{codes.FailedPrecondition, reasonNotFile, "is not a regular file; use the path of a regular file"}
	errPseudo      = &pathError{codes.FailedPrecondition, reasonNotPermitted, "is in a file system of the kernel; use another path"}
	errOwnProcess  = &pathError{codes.FailedPrecondition, reasonNotPermitted, "belongs to the agent; use another path"}
	errTooDeep     = &pathError{codes.FailedPrecondition, reasonNotPermitted, "contains more than 2,048 levels of directories; use a command instead"}
	errIntoItself  = &pathError{codes.InvalidArgument, reasonPathInvalid, "is inside of the directory that is moved or copied; use another destination"}
)

const diskFullText = "could not be written because the sandbox's disk is full; remove files or give the sandbox more disk"

// kernelErrors maps errors of the kernel to errors for the caller. The first match counts.
var kernelErrors = []struct {
	err syscall.Errno
	pathError
}{
	{unix.ENOENT, pathError{codes.NotFound, reasonNotFound, "does not exist; check the path"}},
	{unix.EEXIST, pathError{codes.AlreadyExists, reasonExists, "exists already; use another path or permit overwriting"}},
	{unix.ENOTDIR, pathError{codes.FailedPrecondition, reasonNotDirectory, "is not a directory, or contains a name that is not a directory; use the path of a directory"}},
	{unix.EISDIR, *errIsDirectory},
	{unix.ENOTEMPTY, pathError{codes.FailedPrecondition, reasonNotEmpty, "is a directory that is not empty; set recursive to remove its contents too"}},
	{unix.ENOSPC, pathError{codes.ResourceExhausted, reasonDiskFull, diskFullText}},
	{unix.EDQUOT, pathError{codes.ResourceExhausted, reasonDiskFull, diskFullText}},
	{unix.EFBIG, pathError{codes.ResourceExhausted, reasonTooLarge, "would exceed the file size limit of the sandbox; write less or give the sandbox more disk"}},
	{unix.EMFILE, pathError{codes.ResourceExhausted, reasonFileLimit, "could not be opened because too many files are open; try again later"}},
	{unix.ENFILE, pathError{codes.ResourceExhausted, reasonFileLimit, "could not be opened because too many files are open; try again later"}},
	{unix.ENOMEM, pathError{codes.ResourceExhausted, reasonMemoryLimit, "could not be used because the sandbox has not enough memory; kill processes or give the sandbox more memory"}},
	{unix.ENAMETOOLONG, pathError{codes.InvalidArgument, reasonPathInvalid, "contains a name that is too long for the file system; use names of at most 255 bytes"}},
	{unix.EACCES, pathError{codes.FailedPrecondition, reasonNotPermitted, "is not permitted for this operation; use another path"}},
	{unix.EPERM, pathError{codes.FailedPrecondition, reasonNotPermitted, "is not permitted for this operation; use another path"}},
	{unix.EROFS, pathError{codes.FailedPrecondition, reasonNotPermitted, "is in a read-only file system; use another path"}},
	{unix.EBUSY, pathError{codes.FailedPrecondition, reasonNotPermitted, "is in use, for example as a mount point; use another path"}},
	{unix.ETXTBSY, pathError{codes.FailedPrecondition, reasonNotPermitted, "is a program that is running; end its processes first"}},
	{unix.EAGAIN, pathError{codes.FailedPrecondition, reasonNotPermitted, "is locked by another process; try again later"}},
	{unix.ELOOP, pathError{codes.FailedPrecondition, reasonNotPermitted, "contains too many symbolic links, or one that must not be followed; use another path"}},
	{unix.EOPNOTSUPP, pathError{codes.FailedPrecondition, reasonNotPermitted, "is in a file system that does not support this operation; use another path"}},
}

// failure converts an error of an operation on a path to the error for the caller. The path in a *fs.PathError is more
// precise than the path of the request.
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
	if known := (*pathError)(nil); errors.As(err, &known) {
		return known.about(path)
	}
	for _, known := range kernelErrors {
		if errors.Is(err, known.err) {
			return known.about(path)
		}
	}
	// For example of a defective disk. Only the kernel's message is known.
	slog.Error("a file operation failed", "error", err)
	return (&pathError{codes.FailedPrecondition, reasonNotPermitted, err.Error()}).about(path)
}

// about returns the error for a path.
func (e *pathError) about(path string) error {
	shown := shorten(path)
	if e.code == codes.InvalidArgument {
		return rpcerror.BadField(e.reason, "path", "%s: %s", shown, e.text)
	}
	return rpcerror.About(e.code, e.reason, shown, "%s: %s", shown, e.text)
}

// at adds the path at which an error occurred, unless the error contains a path.
func at(path string, err error) error {
	if err == nil {
		return nil
	}
	if inner := (*fs.PathError)(nil); errors.As(err, &inner) {
		return err
	}
	return &fs.PathError{Op: "use", Path: path, Err: err}
}

// printable returns a name as valid UTF-8. Invalid bytes are replaced.
func printable(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// shorten returns a path for an error: printable and at most maxShownPath bytes.
func shorten(path string) string {
	shown := printable(path)
	if len(shown) > maxShownPath {
		shown = strings.ToValidUTF8(shown[:maxShownPath], "") + "…"
	}
	return shown
}
