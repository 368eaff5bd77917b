package service

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/rpcerror"
	"sandpool/agent/internal/users"
)

// defaultPath is the PATH of common distributions for root. It is used if the image's configuration has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// commandRequest is a command as the caller requests it, before the configuration and the image are applied.
type commandRequest struct {
	argv        []string
	shell       string
	environment map[string]string
	dir         string
	user        string
	// fallback is environment with the lowest precedence.
	fallback map[string]string
}

// plan is a process that can be started, without its standard streams.
type plan struct {
	spec process.Spec
	// commandField is the field of the request that contains the command.
	commandField string
}

// makePlan resolves a request with the current configuration and the image.
func (s *Server) makePlan(command commandRequest) (*plan, error) {
	s.mu.Lock()
	defaults, shared := s.defaults, s.environment
	s.mu.Unlock()

	user := command.user
	if user == "" {
		user = defaults.GetUser()
	}
	identity, err := s.users.Lookup(user)
	if err != nil {
		return nil, rpcerror.BadField(reasonUserUnknown, "user", "%v", err)
	}
	dir := command.dir
	if dir == "" {
		dir = defaults.GetWorkingDirectory()
	}
	if dir == "" {
		dir = "/"
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, rpcerror.BadField(reasonDirInvalid, "working_directory", "%q is not a directory in the sandbox; set an existing directory", dir)
	}

	environment := mergeEnvironment(identity, command.fallback, defaults.GetEnvironment(), shared, command.environment)
	p := &plan{commandField: "argv", spec: process.Spec{
		Argv:     command.argv,
		Env:      flatten(environment),
		Dir:      dir,
		Identity: identity,
	}}
	if command.shell != "" {
		p.commandField = "shell"
		p.spec.Path, err = findShell(s.shells)
		p.spec.Argv = []string{p.spec.Path, "-c", command.shell}
	} else {
		p.spec.Path, err = findExecutable(command.argv[0], environment["PATH"], dir)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// mergeEnvironment merges environments, later ones take precedence, and adds the variables that every program expects.
func mergeEnvironment(identity users.Identity, layers ...map[string]string) map[string]string {
	merged := map[string]string{
		"PATH":    defaultPath,
		"HOME":    identity.Home,
		"USER":    identity.Name,
		"LOGNAME": identity.Name,
	}
	for _, layer := range layers {
		maps.Copy(merged, layer)
	}
	return merged
}

// flatten returns an environment in the form of the kernel, sorted by name.
func flatten(environment map[string]string) []string {
	entries := make([]string, 0, len(environment))
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		entries = append(entries, name+"="+environment[name])
	}
	return entries
}

func findShell(shells []string) (string, error) {
	for _, shell := range shells {
		if isExecutable(shell) {
			return shell, nil
		}
	}
	return "", rpcerror.New(codes.FailedPrecondition, reasonShellNotFound,
		"the image has neither %s; use argv instead of a shell command", strings.Join(shells, " nor "))
}

// findExecutable searches a program as execvp(3) does, on the PATH of the command and relative to its working
// directory.
func findExecutable(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(file) {
			// The path is not cleaned, so that the kernel resolves `..` after symbolic links, as it does for a process.
			file = dir + "/" + name
		}
		info, err := os.Stat(file)
		switch {
		case errors.Is(err, os.ErrPermission):
			return "", rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted,
				"the path of program %q is not accessible: %v; check the permissions of its directories", name, err)
		case err != nil:
			return "", rpcerror.New(codes.NotFound, reasonExecNotFound,
				"program %q does not exist in the sandbox; correct the path or install the program in the image", name)
		case info.IsDir():
			return "", rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted,
				"program %q is a directory; set the path of an executable file", name)
		case !isExecutable(file):
			return "", rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted,
				"program %q is not executable; set its execute permission", name)
		}
		return file, nil
	}
	for _, directory := range strings.Split(path, ":") {
		if !filepath.IsAbs(directory) {
			directory = dir + "/" + directory
		}
		if file := directory + "/" + name; isExecutable(file) {
			return file, nil
		}
	}
	return "", rpcerror.New(codes.NotFound, reasonExecNotFound,
		"program %q was not found on PATH %q; correct the name or install the program in the image", name, path)
}

// isExecutable reports whether a file is a regular file that any user is permitted to execute. The kernel checks at the
// start whether the user of the command is permitted to.
func isExecutable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// mayEnter reports whether a user is permitted to use a directory as working directory, according to the modes of it
// and its parents. Access control lists are not evaluated. The result only selects an error message.
func mayEnter(dir string, identity users.Identity) bool {
	if identity.UID == 0 {
		return true
	}
	for directory := filepath.Clean(dir); ; directory = filepath.Dir(directory) {
		info, err := os.Stat(directory)
		if err != nil || !maySearch(info, identity) {
			return false
		}
		if directory == "/" {
			return true
		}
	}
}

// containerEnvironment returns the part of the container's environment that is intended for commands.
func containerEnvironment(entries []string) *agentv1.Defaults {
	environment := make(map[string]string, len(entries))
	for _, entry := range entries {
		name, value, found := strings.Cut(entry, "=")
		// HOME belongs to the user of the agent; each command gets its user's HOME.
		if found && name != "" && name != "HOME" && !strings.HasPrefix(name, reservedPrefix) {
			environment[name] = value
		}
	}
	return &agentv1.Defaults{Environment: environment}
}
