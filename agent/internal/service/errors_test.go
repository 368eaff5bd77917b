package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
)

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

func milliseconds(n time.Duration) *durationpb.Duration { return durationpb.New(n * time.Millisecond) }

func TestRunCommandNamesInvalidFields(t *testing.T) {
	s := newServer(t)
	many := make(map[string]string)
	for i := range maxEnvironmentVariables + 1 {
		many["V"+strings.Repeat("x", i)] = ""
	}
	for field, requests := range map[string][]*agentv1.RunCommandRequest{
		"argv":  {{}, {Argv: []string{""}}, {Argv: []string{"a", "b\x00"}}, {Argv: []string{"true", strings.Repeat("x", 200_000)}}},
		"shell": {{Argv: []string{"a"}, Shell: "b"}, {Shell: "a\x00"}, {Shell: strings.Repeat("x", maxShellBytes+1)}},
		"environment": {
			{Shell: ":", Environment: map[string]string{"": "x"}}, {Shell: ":", Environment: map[string]string{"A=B": "x"}},
			{Shell: ":", Environment: map[string]string{"A\x00": "x"}}, {Shell: ":", Environment: map[string]string{"A": "\x00"}},
			{Shell: ":", Environment: map[string]string{"SANDPOOL_A": "x"}}, {Shell: ":", Environment: many},
			{Shell: ":", Environment: map[string]string{"A": strings.Repeat("x", maxEnvironmentBytes)}},
		},
		"working_directory": {
			{Shell: ":", WorkingDirectory: "relative"}, {Shell: ":", WorkingDirectory: "/a\x00"},
			{Shell: ":", WorkingDirectory: "/" + strings.Repeat("x", maxPathBytes)},
		},
		"user":             {{Shell: ":", User: "a\x00"}},
		"timeout":          {{Shell: ":", Timeout: seconds(-1)}, {Shell: ":", Timeout: &durationpb.Duration{Nanos: -1}}, {Shell: ":", Timeout: seconds(1 << 60)}},
		"stdin":            {{Shell: ":", Stdin: make([]byte, maxStdinBytes+1)}},
		"max_output_bytes": {{Shell: ":", MaxOutputBytes: -1}, {Shell: ":", MaxOutputBytes: maxOutputBytes + 1}},
	} {
		for _, request := range requests {
			_, err := s.RunCommand(t.Context(), request)
			wantError(t, err, codes.InvalidArgument, reasonInvalidField, field)
		}
	}
	_, err := s.RunCommand(t.Context(), &agentv1.RunCommandRequest{Shell: ":", WorkingDirectory: "/does/not/exist"})
	wantError(t, err, codes.InvalidArgument, reasonDirInvalid, "working_directory")
	_, err = s.RunCommand(t.Context(), &agentv1.RunCommandRequest{Shell: ":", WorkingDirectory: "/etc/passwd"})
	wantError(t, err, codes.InvalidArgument, reasonDirInvalid, "working_directory")
	_, err = s.RunCommand(t.Context(), &agentv1.RunCommandRequest{Shell: ":", User: "stranger"})
	wantError(t, err, codes.InvalidArgument, reasonUserUnknown, "user")
}

func TestConfigureNamesInvalidFields(t *testing.T) {
	s := newServer(t)
	for field, request := range map[string]*agentv1.ConfigureRequest{
		"defaults.environment":       {Defaults: &agentv1.Defaults{Environment: map[string]string{"=": ""}}},
		"defaults.working_directory": {Defaults: &agentv1.Defaults{WorkingDirectory: "x"}},
		"defaults.user":              {Defaults: &agentv1.Defaults{User: "\x00"}},
		"defaults.max_output_bytes":  {Defaults: &agentv1.Defaults{MaxOutputBytes: -1}},
		"environment":                {Environment: map[string]string{"SANDPOOL_A": ""}, Defaults: &agentv1.Defaults{User: "app"}},
		"entrypoint.argv":            {Entrypoint: &agentv1.Entrypoint{}, Defaults: &agentv1.Defaults{User: "app"}},
	} {
		_, err := s.Configure(t.Context(), request)
		wantError(t, err, codes.InvalidArgument, reasonInvalidField, field)
	}
	info, err := s.GetInfo(t.Context(), &agentv1.GetInfoRequest{})
	if err != nil || info.GetConfigured() {
		t.Errorf("a rejected request was applied: %v, %v", info, err)
	}
}

func TestRunCommandReportsWhyItCannotStart(t *testing.T) {
	s := newServer(t)
	// t.TempDir() is not used because other users cannot enter it.
	dir, err := os.MkdirTemp("/tmp", "agent-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, text, mode)
		return path
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		request *agentv1.RunCommandRequest
		code    codes.Code
		reason  string
	}{
		"not in PATH":     {&agentv1.RunCommandRequest{Argv: []string{"no-such-program"}}, codes.NotFound, reasonExecNotFound},
		"no such file":    {&agentv1.RunCommandRequest{Argv: []string{dir + "/missing"}}, codes.NotFound, reasonExecNotFound},
		"not executable":  {&agentv1.RunCommandRequest{Argv: []string{file("plain", "", 0o644)}}, codes.FailedPrecondition, reasonExecNotPermitted},
		"a directory":     {&agentv1.RunCommandRequest{Argv: []string{dir}}, codes.FailedPrecondition, reasonExecNotPermitted},
		"of another user": {&agentv1.RunCommandRequest{Argv: []string{file("private", "#!/bin/sh\n", 0o700)}, User: "app"}, codes.FailedPrecondition, reasonExecNotPermitted},
		"no interpreter":  {&agentv1.RunCommandRequest{Argv: []string{file("script", "#!/no/such\n", 0o755)}}, codes.NotFound, reasonInterpreterNotFound},
		"unknown format":  {&agentv1.RunCommandRequest{Argv: []string{file("text", "hello", 0o755)}}, codes.FailedPrecondition, reasonExecFormat},
		"directory without permission": {&agentv1.RunCommandRequest{Argv: []string{"true"}, WorkingDirectory: closed, User: "app"},
			codes.FailedPrecondition, reasonDirNotPermitted},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.RunCommand(t.Context(), test.request)
			wantError(t, err, test.code, test.reason, "")
		})
	}
	file("tool", "#!/bin/sh\necho found\n", 0o755)
	for _, request := range []*agentv1.RunCommandRequest{
		{Argv: []string{"tool"}, Environment: map[string]string{"PATH": "/nowhere:" + dir}},
		{Argv: []string{"tool"}, Environment: map[string]string{"PATH": ""}, WorkingDirectory: dir},
		{Argv: []string{"./tool"}, WorkingDirectory: dir},
	} {
		response, err := s.RunCommand(t.Context(), request)
		if err != nil || string(response.GetStdout()) != "found\n" {
			t.Errorf("%v: %v, %v", request, response, err)
		}
	}
}

func TestPrefersBashOverSh(t *testing.T) {
	s := newServer(t)
	response := run(t, s, &agentv1.RunCommandRequest{Shell: "echo ${BASH_VERSION:+bash}"})
	if string(response.GetStdout()) != "bash\n" {
		t.Errorf("%q, want bash if it exists", response.GetStdout())
	}
	s.shells = []string{"/no/such/bash", "/bin/sh"}
	response = run(t, s, &agentv1.RunCommandRequest{Shell: "echo $0"})
	if string(response.GetStdout()) != "/bin/sh\n" {
		t.Errorf("%q, want /bin/sh if bash does not exist", response.GetStdout())
	}
	s.shells = []string{"/no/such/bash", "/no/such/sh"}
	_, err := s.RunCommand(t.Context(), &agentv1.RunCommandRequest{Shell: "true"})
	wantError(t, err, codes.FailedPrecondition, reasonShellNotFound, "")
	run(t, s, &agentv1.RunCommandRequest{Argv: []string{"true"}})
}

func TestRunCommandLimitsTheNumberOfCommands(t *testing.T) {
	s := newServer(t)
	s.running.Store(maxCommands)
	_, err := s.RunCommand(t.Context(), &agentv1.RunCommandRequest{Shell: "true"})
	wantError(t, err, codes.ResourceExhausted, reasonCommandLimit, "")
	if got := s.running.Load(); got != maxCommands {
		t.Errorf("%d commands are counted after the error", got)
	}
}
