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

// defaultPath is what ordinary distributions give root, for an image whose configuration names no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// wish is what somebody wants run, before it meets the configuration and the image.
type wish struct {
	argv        []string
	shell       string
	environment map[string]string
	dir         string
	user        string
	// fallback is environment below all other.
	fallback map[string]string
}

// plan is a process that can be started, apart from its standard streams.
type plan struct {
	spec process.Spec
	// commandField is the request's field that the command line came from.
	commandField string
}

// makePlan resolves a wish against the configuration and the image as they are now.
func (s *Server) makePlan(w wish) (*plan, error) {
	s.mu.Lock()
	defaults, shared := s.defaults, s.environment
	s.mu.Unlock()

	user := w.user
	if user == "" {
		user = defaults.GetUser()
	}
	identity, err := s.users.Lookup(user)
	if err != nil {
		return nil, rpcerror.BadField(reasonUserUnknown, "user", "%v", err)
	}
	dir := w.dir
	if dir == "" {
		dir = defaults.GetWorkingDirectory()
	}
	if dir == "" {
		dir = "/"
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, rpcerror.BadField(reasonDirInvalid, "working_directory", "%q is not a directory in the sandbox", dir)
	}

	environment := mergeEnvironment(identity, w.fallback, defaults.GetEnvironment(), shared, w.environment)
	p := &plan{commandField: "argv", spec: process.Spec{
		Argv:     w.argv,
		Env:      flatten(environment),
		Dir:      dir,
		Identity: identity,
	}}
	if w.shell != "" {
		p.commandField = "shell"
		p.spec.Path, err = findShell(s.shells)
		p.spec.Argv = []string{p.spec.Path, "-c", w.shell}
	} else {
		p.spec.Path, err = findExecutable(w.argv[0], environment["PATH"], dir)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// mergeEnvironment lays the environments over one another, later ones on top, and adds what every program expects.
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

// flatten turns an environment into the kernel's form, in a fixed order.
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
		"the image has neither %s: give argv instead of a shell string", strings.Join(shells, " nor "))
}

// findExecutable finds a program as execvp(3) does, in the command's PATH and from its working directory.
func findExecutable(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(file) {
			// Not cleaned: the kernel shall resolve .. after symbolic links, as it would for the process.
			file = dir + "/" + name
		}
		info, err := os.Stat(file)
		switch {
		case errors.Is(err, os.ErrPermission):
			return "", rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted, "%q cannot be reached: %v", name, err)
		case err != nil:
			return "", rpcerror.New(codes.NotFound, reasonExecNotFound, "%q does not exist in the sandbox", name)
		case info.IsDir():
			return "", rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted, "%q is a directory", name)
		case !isExecutable(file):
			return "", rpcerror.New(codes.FailedPrecondition, reasonExecNotPermitted, "%q is not executable", name)
		}
		return file, nil
	}
	for _, folder := range strings.Split(path, ":") {
		if !filepath.IsAbs(folder) {
			folder = dir + "/" + folder
		}
		if file := folder + "/" + name; isExecutable(file) {
			return file, nil
		}
	}
	return "", rpcerror.New(codes.NotFound, reasonExecNotFound, "%q is not in the command's PATH %q", name, path)
}

// isExecutable is whether a file is a plain one that somebody may execute; whether the command's user may is for the
// kernel to say.
func isExecutable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// mayEnter is whether a user may make a directory the working one, by the modes of it and its parents; access lists
// are not looked at. It only chooses between two messages.
func mayEnter(dir string, identity users.Identity) bool {
	if identity.UID == 0 {
		return true
	}
	for folder := filepath.Clean(dir); ; folder = filepath.Dir(folder) {
		info, err := os.Stat(folder)
		if err != nil || !maySearch(info, identity) {
			return false
		}
		if folder == "/" {
			return true
		}
	}
}

// containerEnvironment is what the container's engine gave to its first process, as far as it is meant for commands.
func containerEnvironment(entries []string) *agentv1.Defaults {
	environment := make(map[string]string, len(entries))
	for _, entry := range entries {
		name, value, found := strings.Cut(entry, "=")
		// HOME is the one of the agent's own user; commands get theirs.
		if found && name != "" && name != "HOME" && !strings.HasPrefix(name, reservedPrefix) {
			environment[name] = value
		}
	}
	return &agentv1.Defaults{Environment: environment}
}
