package service

import (
	"errors"
	"syscall"

	"google.golang.org/grpc/codes"

	"sandpool/agent/internal/rpcerror"
)

// Reasons of errors. They are a stable part of the contract; the proto describes when each is used.
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

// resourceError maps errors of the kernel about exhausted resources. It returns nil for other errors.
func resourceError(err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return rpcerror.New(codes.ResourceExhausted, reasonProcessLimit,
			"the limit of processes and threads of the sandbox is reached; kill processes")
	case errors.Is(err, syscall.ENOMEM):
		return rpcerror.New(codes.ResourceExhausted, reasonMemoryLimit,
			"the sandbox has not enough memory to start a process; kill processes or give the sandbox more memory")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return rpcerror.New(codes.ResourceExhausted, reasonFileLimit,
			"the limit of open files is reached, so no process can be started; wait until running commands exit")
	}
	return nil
}

// startError maps the error of a fork, of a step between fork and exec, or of the exec.
func startError(plan *plan, err error) error {
	if resource := resourceError(err); resource != nil {
		return resource
	}
	program := plan.spec.Path
	switch {
	case errors.Is(err, syscall.EACCES) && !mayEnter(plan.spec.Dir, plan.spec.Identity):
		return rpcerror.New(codes.FailedPrecondition, reasonDirNotPermitted,
			"user %q is not permitted to enter the working directory %q; use another directory or another user", plan.spec.Identity.Name, plan.spec.Dir)
	case errors.Is(err, syscall.EACCES):
		return rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted,
			"user %q is not permitted to execute %q; change the mode of the file or use another user", plan.spec.Identity.Name, program)
	case errors.Is(err, syscall.ETXTBSY):
		return rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted,
			"program %q is open for writing by another process; try again after it is closed", program)
	case errors.Is(err, syscall.ENOENT):
		return rpcerror.New(codes.NotFound, reasonInterpreterNotFound,
			"program %q exists, but its interpreter or dynamic loader does not; install it in the image", program)
	case errors.Is(err, syscall.ENOEXEC):
		return rpcerror.New(codes.FailedPrecondition, reasonExecFormat,
			"file %q is neither a program for this machine nor a script with a #! line", program)
	case errors.Is(err, syscall.E2BIG):
		return rpcerror.BadField(reasonInvalidField, plan.commandField,
			"is too large together with the environment; the limit of the kernel is about 2 MiB, and 128 KiB for each string")
	case errors.Is(err, syscall.EPERM):
		return rpcerror.New(codes.FailedPrecondition, reasonUserNotPermitted,
			"the agent is not permitted to run a process as user %q; use another user", plan.spec.Identity.Name)
	default:
		return rpcerror.New(codes.Internal, reasonStartFailed, "starting program %q failed: %v", program, err)
	}
}
