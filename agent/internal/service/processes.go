package service

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/processes"
	"sandpool/agent/internal/rpcerror"
)

// terminalType is the value of TERM for a program on a terminal whose environment does not set it.
const terminalType = "xterm-256color"

// ProcessServer implements ProcessService of the public contract. The server validates requests before it passes them
// on.
type ProcessServer struct {
	sandpoolv1.UnimplementedProcessServiceServer

	server   *Server
	registry *processes.Registry
}

// Processes returns the implementation of ProcessService.
func (s *Server) Processes() *ProcessServer {
	return &ProcessServer{server: s, registry: processes.NewRegistry(processes.Options{
		NullFile:    s.nullFile,
		OOMKills:    s.oomKills,
		Exit:        s.publicExit,
		KillTree:    killTree,
		StreamError: streamError,
		Stopping:    s.stopping,
		Log:         s.log,
	})}
}

// streamError returns the error for a pipe or a terminal that cannot be created.
func streamError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return rpcerror.BadField(reasonInvalidField, "terminal", "the sandbox supports no terminals because /dev/ptmx does not exist; start the process without a terminal")
	}
	return pipeError(err)
}

// publicExit returns the result of exitOf as a message of the public contract.
func (s *Server) publicExit(
	run *process.Process, killsBefore int64, forced sandpoolv1.ExitReason,
) *sandpoolv1.ProcessExit {
	found := s.exitOf(run, killsBefore, agentv1.ExitReason_EXIT_REASON_UNSPECIFIED)
	exit := &sandpoolv1.ProcessExit{Reason: forced}
	if forced == sandpoolv1.ExitReason_EXIT_REASON_UNSPECIFIED {
		// Both contracts use the same numbers for these reasons.
		exit.Reason = sandpoolv1.ExitReason(found.GetReason())
	}
	switch status := found.GetStatus().(type) {
	case *agentv1.ProcessExit_ExitCode:
		exit.Status = &sandpoolv1.ProcessExit_ExitCode{ExitCode: status.ExitCode}
	case *agentv1.ProcessExit_Signal:
		exit.Status = &sandpoolv1.ProcessExit_Signal{Signal: status.Signal}
	}
	return exit
}

// StartProcess implements ProcessService.
func (p *ProcessServer) StartProcess(
	_ context.Context, request *sandpoolv1.StartProcessRequest,
) (*sandpoolv1.StartProcessResponse, error) {
	started, err := p.start(request)
	if err != nil {
		return nil, err
	}
	return &sandpoolv1.StartProcessResponse{Process: started.Record()}, nil
}

func (p *ProcessServer) start(request *sandpoolv1.StartProcessRequest) (*processes.Process, error) {
	command := commandRequest{
		argv:        request.GetArgv(),
		shell:       request.GetCommand(),
		environment: request.GetEnv(),
		dir:         request.GetWorkingDir(),
		user:        request.GetUser(),
	}
	if err := checkCommandRequest(command); err != nil {
		return nil, err
	}
	if request.GetTerminal() != nil {
		command.fallback = map[string]string{"TERM": terminalType}
	}
	return p.registry.Start(request, func(files processes.Files) (*process.Process, error) {
		made, err := p.server.makePlan(command)
		if err != nil {
			return nil, err
		}
		made.spec.Stdin, made.spec.Stdout, made.spec.Stderr = files.Stdin, files.Stdout, files.Stderr
		made.spec.Terminal = files.Terminal
		if files.Terminal {
			// The user of the process becomes the owner, so that the program can open the terminal by its path too. If
			// this fails, the program still has the open descriptors.
			_ = unix.Fchown(files.Stdin, int(made.spec.Identity.UID), -1)
		}
		return p.server.start(made)
	})
}

// checkCommandRequest checks rules that the server does not check.
func checkCommandRequest(command commandRequest) error {
	if len(command.argv) == 0 && command.shell == "" {
		return rpcerror.BadField(reasonInvalidField, "command", "set exactly one of command and argv")
	}
	for _, check := range []error{
		checkEnvironment("env", command.environment), checkReserved("env", command.environment), checkDir("working_dir", command.dir),
	} {
		if check != nil {
			return check
		}
	}
	return nil
}

// AttachProcess implements ProcessService.
func (p *ProcessServer) AttachProcess(
	request *sandpoolv1.AttachProcessRequest, stream sandpoolv1.ProcessService_AttachProcessServer,
) error {
	found, err := p.registry.Get(request.GetProcessId())
	if err != nil {
		return err
	}
	return found.Attach(stream.Context(), request, func(event *sandpoolv1.ProcessEvent) error {
		return stream.Send(&sandpoolv1.AttachProcessResponse{Event: event})
	})
}

// ConnectProcess implements ProcessService.
func (p *ProcessServer) ConnectProcess(stream sandpoolv1.ProcessService_ConnectProcessServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	attach := first.GetAttach()
	var found *processes.Process
	switch {
	case first.GetStart() != nil:
		found, err = p.start(first.GetStart())
		attach = &sandpoolv1.AttachProcessRequest{}
	case attach != nil:
		found, err = p.registry.Get(attach.GetProcessId())
	default:
		err = rpcerror.BadField(reasonInvalidField, "start", "must be set in the first message, unless attach is set")
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() {
		if err := takeInput(ctx, found, stream); err != nil {
			cancel(err)
		}
	}()
	err = found.Attach(ctx, attach, func(event *sandpoolv1.ProcessEvent) error {
		return stream.Send(&sandpoolv1.ConnectProcessResponse{Event: event})
	})
	if cause := context.Cause(ctx); err != nil && cause != nil && stream.Context().Err() == nil {
		return cause
	}
	return err
}

// takeInput applies the messages of a client until it closes the requests.
func takeInput(ctx context.Context, found *processes.Process, stream sandpoolv1.ProcessService_ConnectProcessServer) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		switch part := message.GetMessage().(type) {
		case *sandpoolv1.ConnectProcessRequest_Input:
			_, err = found.Write(ctx, part.Input)
		case *sandpoolv1.ConnectProcessRequest_Resize:
			err = found.Resize(part.Resize)
		case *sandpoolv1.ConnectProcessRequest_Signal:
			err = found.Signal(part.Signal, false)
		default:
			err = rpcerror.BadField(reasonInvalidField, "message", "must not be start or attach after the first message")
		}
		if err != nil {
			return err
		}
	}
}

// WriteProcessInput implements ProcessService.
func (p *ProcessServer) WriteProcessInput(
	ctx context.Context, request *sandpoolv1.WriteProcessInputRequest,
) (*sandpoolv1.WriteProcessInputResponse, error) {
	found, err := p.registry.Get(request.GetProcessId())
	if err != nil {
		return nil, err
	}
	received, err := found.Write(ctx, request.GetInput())
	if err != nil {
		return nil, err
	}
	return &sandpoolv1.WriteProcessInputResponse{StdinBytes: received}, nil
}

// ResizeProcess implements ProcessService.
func (p *ProcessServer) ResizeProcess(
	_ context.Context, request *sandpoolv1.ResizeProcessRequest,
) (*sandpoolv1.ResizeProcessResponse, error) {
	found, err := p.registry.Get(request.GetProcessId())
	if err == nil {
		err = found.Resize(request.GetTerminal())
	}
	return &sandpoolv1.ResizeProcessResponse{}, err
}

// SignalProcess implements ProcessService.
func (p *ProcessServer) SignalProcess(
	_ context.Context, request *sandpoolv1.SignalProcessRequest,
) (*sandpoolv1.SignalProcessResponse, error) {
	found, err := p.registry.Get(request.GetProcessId())
	if err == nil {
		err = found.Signal(request.GetSignal(), request.GetTree())
	}
	return &sandpoolv1.SignalProcessResponse{}, err
}

// KillProcess implements ProcessService.
func (p *ProcessServer) KillProcess(
	ctx context.Context, request *sandpoolv1.KillProcessRequest,
) (*sandpoolv1.KillProcessResponse, error) {
	found, err := p.registry.Get(request.GetProcessId())
	if err != nil {
		return nil, err
	}
	found.Kill(ctx.Done())
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &sandpoolv1.KillProcessResponse{Process: found.Record()}, nil
}

// GetProcess implements ProcessService.
func (p *ProcessServer) GetProcess(
	_ context.Context, request *sandpoolv1.GetProcessRequest,
) (*sandpoolv1.GetProcessResponse, error) {
	found, err := p.registry.Get(request.GetProcessId())
	if err != nil {
		return nil, err
	}
	return &sandpoolv1.GetProcessResponse{Process: found.Record()}, nil
}

// ListProcesses implements ProcessService.
func (p *ProcessServer) ListProcesses(
	_ context.Context, request *sandpoolv1.ListProcessesRequest,
) (*sandpoolv1.ListProcessesResponse, error) {
	page, next, err := p.registry.List(request.GetStates(), int(request.GetPageSize()), request.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &sandpoolv1.ListProcessesResponse{Processes: page, NextPageToken: next}, nil
}

// RestartProcess implements ProcessService.
func (p *ProcessServer) RestartProcess(
	ctx context.Context, request *sandpoolv1.RestartProcessRequest,
) (*sandpoolv1.RestartProcessResponse, error) {
	found, err := p.registry.Get(request.GetProcessId())
	if err != nil {
		return nil, err
	}
	if err := found.Restart(ctx.Done()); err != nil {
		return nil, err
	}
	return &sandpoolv1.RestartProcessResponse{Process: found.Record()}, nil
}
