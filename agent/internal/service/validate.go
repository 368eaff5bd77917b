package service

import (
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	"sandpool/agent/internal/rpcerror"
)

// Limits that the proto defines.
const (
	maxEnvironmentVariables = 1024
	maxEnvironmentBytes     = 1 << 20
	maxPathBytes            = 4096
	maxShellBytes           = 128<<10 - 1
	maxStdinBytes           = 4 << 20
	maxOutputBytes          = 8 << 20
	defaultOutputBytes      = 1 << 20
)

// Prefix of variables that are reserved for sandpool.
const reservedPrefix = "SANDPOOL_"

func checkDefaults(defaults *agentv1.Defaults) error {
	if err := checkEnvironment("defaults.environment", defaults.GetEnvironment()); err != nil {
		return err
	}
	if err := checkDir("defaults.working_directory", defaults.GetWorkingDirectory()); err != nil {
		return err
	}
	if err := checkText("defaults.user", defaults.GetUser()); err != nil {
		return err
	}
	return checkOutputLimit("defaults.max_output_bytes", defaults.GetMaxOutputBytes())
}

func checkRunCommand(request *agentv1.RunCommandRequest) error {
	switch {
	case len(request.GetArgv()) == 0 && request.GetShell() == "":
		return rpcerror.BadField(reasonInvalidField, "argv", "set exactly one of argv and shell")
	case len(request.GetArgv()) > 0 && request.GetShell() != "":
		return rpcerror.BadField(reasonInvalidField, "shell", "set exactly one of argv and shell")
	case len(request.GetShell()) > maxShellBytes:
		return rpcerror.BadField(reasonInvalidField, "shell", "has %d bytes, the limit is %d; pass the script on stdin", len(request.GetShell()), maxShellBytes)
	case len(request.GetStdin()) > maxStdinBytes:
		return rpcerror.BadField(reasonInvalidField, "stdin", "has %d bytes, the limit is %d", len(request.GetStdin()), maxStdinBytes)
	}
	if len(request.GetArgv()) > 0 {
		if err := checkArgv("argv", request.GetArgv()); err != nil {
			return err
		}
	}
	for _, check := range []error{
		checkText("shell", request.GetShell()),
		checkEnvironment("environment", request.GetEnvironment()),
		checkReserved("environment", request.GetEnvironment()),
		checkDir("working_directory", request.GetWorkingDirectory()),
		checkText("user", request.GetUser()),
		checkTimeout("timeout", request.GetTimeout()),
		checkOutputLimit("max_output_bytes", request.GetMaxOutputBytes()),
	} {
		if check != nil {
			return check
		}
	}
	return nil
}

func checkArgv(field string, argv []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return rpcerror.BadField(reasonInvalidField, field, "the first string, the program, must not be empty")
	}
	for _, argument := range argv {
		if err := checkText(field, argument); err != nil {
			return err
		}
	}
	return nil
}

func checkEnvironment(field string, environment map[string]string) error {
	if len(environment) > maxEnvironmentVariables {
		return rpcerror.BadField(reasonInvalidField, field, "has %d variables, the limit is %d",
			len(environment), maxEnvironmentVariables)
	}
	total := 0
	for name, value := range environment {
		// The name of a variable is not secret, but its value can be, so messages do not contain values.
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return rpcerror.BadField(reasonInvalidField, field,
				"%q is not a valid name of a variable; a name must not be empty and must not contain = or NUL", name)
		}
		if strings.ContainsRune(value, 0) {
			return rpcerror.BadField(reasonInvalidField, field, "the value of %q must not contain NUL", name)
		}
		total += len(name) + len(value) + 2
	}
	if total > maxEnvironmentBytes {
		return rpcerror.BadField(reasonInvalidField, field, "has %d bytes, the limit is %d", total, maxEnvironmentBytes)
	}
	return nil
}

func checkReserved(field string, environment map[string]string) error {
	for name := range environment {
		if strings.HasPrefix(name, reservedPrefix) {
			return rpcerror.BadField(reasonInvalidField, field,
				"%q is a reserved name; use a name that does not start with %s", name, reservedPrefix)
		}
	}
	return nil
}

func checkDir(field, dir string) error {
	switch {
	case dir == "":
		return nil
	case !strings.HasPrefix(dir, "/"):
		return rpcerror.BadField(reasonInvalidField, field, "must be an absolute path, got %q", dir)
	case len(dir) >= maxPathBytes:
		return rpcerror.BadField(reasonInvalidField, field, "has %d bytes, the limit is %d", len(dir), maxPathBytes-1)
	}
	return checkText(field, dir)
}

func checkText(field, text string) error {
	if strings.ContainsRune(text, 0) {
		return rpcerror.BadField(reasonInvalidField, field, "must not contain NUL")
	}
	return nil
}

func checkOutputLimit(field string, limit int64) error {
	if limit < 0 || limit > maxOutputBytes {
		return rpcerror.BadField(reasonInvalidField, field, "must be 0 to %d bytes, got %d", maxOutputBytes, limit)
	}
	return nil
}

func checkFileLimit(field string, limit int64) error {
	if limit < 0 {
		return rpcerror.BadField(reasonInvalidField, field, "must not be negative, got %d", limit)
	}
	return nil
}

func checkTimeout(field string, timeout *durationpb.Duration) error {
	if timeout == nil {
		return nil
	}
	if err := timeout.CheckValid(); err != nil || timeout.AsDuration() < 0 {
		return rpcerror.BadField(reasonInvalidField, field, "must be a valid duration that is not negative, got %v", timeout)
	}
	return nil
}
