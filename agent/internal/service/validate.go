package service

import (
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	"sandpool/agent/internal/rpcerror"
)

// Limits that the proto promises.
const (
	maxEnvironmentVariables = 1024
	maxEnvironmentBytes     = 1 << 20
	maxPathBytes            = 4096
	maxShellBytes           = 128<<10 - 1
	maxStdinBytes           = 4 << 20
	maxOutputBytes          = 8 << 20
	defaultOutputBytes      = 1 << 20
)

// Variables with this prefix belong to sandpool.
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
		return rpcerror.BadField(reasonInvalidField, "argv", "give either argv or shell")
	case len(request.GetArgv()) > 0 && request.GetShell() != "":
		return rpcerror.BadField(reasonInvalidField, "shell", "give either argv or shell, not both")
	case len(request.GetShell()) > maxShellBytes:
		return rpcerror.BadField(reasonInvalidField, "shell", "longer than %d bytes; pass a script by stdin instead", maxShellBytes)
	case len(request.GetStdin()) > maxStdinBytes:
		return rpcerror.BadField(reasonInvalidField, "stdin", "longer than %d bytes", maxStdinBytes)
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
		return rpcerror.BadField(reasonInvalidField, field, "the program's name is missing")
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
		return rpcerror.BadField(reasonInvalidField, field, "more than %d variables", maxEnvironmentVariables)
	}
	total := 0
	for name, value := range environment {
		// The name of a variable is no secret, its value may be one.
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return rpcerror.BadField(reasonInvalidField, field, "%q cannot be a variable's name: it is empty or has = or NUL in it", name)
		}
		if strings.ContainsRune(value, 0) {
			return rpcerror.BadField(reasonInvalidField, field, "the value of %q has a NUL in it", name)
		}
		total += len(name) + len(value) + 2
	}
	if total > maxEnvironmentBytes {
		return rpcerror.BadField(reasonInvalidField, field, "larger than %d bytes", maxEnvironmentBytes)
	}
	return nil
}

func checkReserved(field string, environment map[string]string) error {
	for name := range environment {
		if strings.HasPrefix(name, reservedPrefix) {
			return rpcerror.BadField(reasonInvalidField, field, "%q: names that begin with %s are reserved", name, reservedPrefix)
		}
	}
	return nil
}

func checkDir(field, dir string) error {
	switch {
	case dir == "":
		return nil
	case !strings.HasPrefix(dir, "/"):
		return rpcerror.BadField(reasonInvalidField, field, "%q is not an absolute path", dir)
	case len(dir) >= maxPathBytes:
		return rpcerror.BadField(reasonInvalidField, field, "longer than %d bytes", maxPathBytes-1)
	}
	return checkText(field, dir)
}

func checkText(field, text string) error {
	if strings.ContainsRune(text, 0) {
		return rpcerror.BadField(reasonInvalidField, field, "has a NUL in it")
	}
	return nil
}

func checkOutputLimit(field string, limit int64) error {
	if limit < 0 || limit > maxOutputBytes {
		return rpcerror.BadField(reasonInvalidField, field, "must be 0 to %d bytes", maxOutputBytes)
	}
	return nil
}

func checkFileLimit(field string, limit int64) error {
	if limit < 0 {
		return rpcerror.BadField(reasonInvalidField, field, "must be 0 bytes or more")
	}
	return nil
}

func checkTimeout(field string, timeout *durationpb.Duration) error {
	if timeout == nil {
		return nil
	}
	if err := timeout.CheckValid(); err != nil || timeout.AsDuration() < 0 {
		return rpcerror.BadField(reasonInvalidField, field, "must be a duration of 0 or more")
	}
	return nil
}
