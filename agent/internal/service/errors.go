package service

import (
	"errors"
	"syscall"

	"google.golang.org/grpc/codes"

	"sandpool/agent/internal/rpcerror"
)

// Reasons that are stable parts of the contract; the proto says when each is used.
const (
	reasonInvalidField        = "INVALID_FIELD"
	reasonUserUnknown         = "USER_UNKNOWN"
	reasonUserNotPermitted    = "USER_NOT_PERMITTED"
	reasonDirInvalid          = "WORKING_DIRECTORY_INVALID"
	reasonDirNotPermitted     = "WORKING_DIRECTORY_NOT_PERMITTED"
	reasonExecNotFound        = "EXECUTABLE_NOT_FOUND"
	reasonExecNotPermitted    = "EXECUTABLE_NOT_PERMITTED"
	reasonExecFormat          = "EXECUTABLE_FORMAT"
	reasonInterpreterNotFound = "INTERPRETER_NOT_FOUND"
	reasonShellNotFound       = "SHELL_NOT_FOUND"
	reasonProcessLimit        = "PROCESS_LIMIT"
	reasonMemoryLimit         = "MEMORY_LIMIT"
	reasonFileLimit           = "FILE_LIMIT"
	reasonCommandLimit        = "COMMAND_LIMIT"
	reasonEntrypointConflict  = "ENTRYPOINT_CONFLICT"
	reasonFileSizeFixed       = "FILE_SIZE_FIXED"
	reasonShuttingDown        = "SHUTTING_DOWN"
	reasonStartFailed         = "START_FAILED"
)

// resourceError maps what the kernel says when something has run out; nil for all other errors.
func resourceError(err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return rpcerror.New(codes.ResourceExhausted, reasonProcessLimit,
			"the sandbox may not have more processes and threads: end some, or raise its limit")
	case errors.Is(err, syscall.ENOMEM):
		return rpcerror.New(codes.ResourceExhausted, reasonMemoryLimit, "not enough memory in the sandbox to start a process")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return rpcerror.New(codes.ResourceExhausted, reasonFileLimit, "too many open files to start another process")
	}
	return nil
}

// startError maps the error of a fork, of one of the steps between it and the exec, or of the exec.
func startError(plan *plan, err error) error {
	if resource := resourceError(err); resource != nil {
		return resource
	}
	program := plan.spec.Path
	switch {
	case errors.Is(err, syscall.EACCES) && !mayEnter(plan.spec.Dir, plan.spec.Identity):
		return rpcerror.New(codes.FailedPrecondition, reasonDirNotPermitted,
			"user %s may not enter the working directory %q", plan.spec.Identity.Name, plan.spec.Dir)
	case errors.Is(err, syscall.EACCES):
		return rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted,
			"user %s may not execute %q", plan.spec.Identity.Name, program)
	case errors.Is(err, syscall.ETXTBSY):
		return rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted, "%q is being written to", program)
	case errors.Is(err, syscall.ENOENT):
		return rpcerror.New(codes.NotFound, reasonInterpreterNotFound,
			"%q exists, but the interpreter or dynamic loader that it asks for does not", program)
	case errors.Is(err, syscall.ENOEXEC):
		return rpcerror.New(codes.FailedPrecondition, reasonExecFormat,
			"%q is no program for this machine, and no script with a #! line", program)
	case errors.Is(err, syscall.E2BIG):
		return rpcerror.BadField(reasonInvalidField, plan.commandField,
			"together with the environment larger than the kernel takes (about 2 MiB, 128 KiB each string)")
	case errors.Is(err, syscall.EPERM):
		return rpcerror.New(codes.FailedPrecondition, reasonUserNotPermitted,
			"the agent lacks the right to run a process as user %s", plan.spec.Identity.Name)
	default:
		return rpcerror.New(codes.Internal, reasonStartFailed, "cannot start %q: %v", program, err)
	}
}
