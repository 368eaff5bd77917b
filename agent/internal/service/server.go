// Package service implements AgentService of sandpool.agent.v1 and ProcessService of sandpool.v1.
package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/oom"
	"sandpool/agent/internal/output"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/procfs"
	"sandpool/agent/internal/reaper"
	"sandpool/agent/internal/rpcerror"
	"sandpool/agent/internal/users"
)

// ProtocolVersion is the version of the contract's behaviour that this agent implements. Version 5 uses
// google.protobuf.Duration for all durations of the public services.
const ProtocolVersion = 5

const (
	maxCommands = 256
	// Maximum time to wait for killed processes. A process that hangs in the kernel can outlive it; the call then
	// returns without waiting for it.
	killTime = 5 * time.Second
)

// Options are the parameters of a server.
type Options struct {
	// Version is the version of the build.
	Version string
	// Environment is the environment of the agent without the variables of the agent.
	Environment []string
	Reaper      *reaper.Reaper
	Users       users.Database
	// Log returns a writer for the output of the entrypoint or of a service. The writer never blocks.
	Log func(source string, stream sandpoolv1.OutputStream) io.WriteCloser
}

// Server implements AgentService. Its methods can be called at any time and concurrently.
type Server struct {
	agentv1.UnimplementedAgentServiceServer

	version      string
	bootID       string
	startTime    time.Time
	pidNamespace string

	reaper   *reaper.Reaper
	launcher *process.Launcher
	users    users.Database
	// countKills returns the kernel's count of out-of-memory kills.
	countKills func() (kills int64, ok bool)
	nullFile   int
	log        func(source string, stream sandpoolv1.OutputStream) io.WriteCloser
	// tees copy the output of the entrypoint. They are set before followEntrypoint is called.
	tees []*output.Teed
	// shells are tried for a command line in this order.
	shells []string
	// after is the clock for timeouts.
	after func(time.Duration) (passed <-chan time.Time, cancel func())

	running atomic.Int32
	// stopping is closed when Stop is called.
	stopping chan struct{}
	// entrypointExited is closed after entrypoint.exit is set.
	entrypointExited chan struct{}

	// startMu is read-locked during each start of a process, and locked when Stop is called. So Stop either finds a
	// process, or its start is rejected.
	startMu sync.RWMutex
	// configureMu serializes calls of Configure.
	configureMu sync.Mutex

	// mu guards the fields below. It is never held during a system call that can block.
	mu          sync.Mutex
	configured  bool
	defaults    *agentv1.Defaults
	environment map[string]string
	// fileLimit is the maximum size of a file that processes can write, in bytes; 0 if unlimited.
	fileLimit  int64
	entrypoint entrypoint
	trees      map[*process.Process]struct{}
}

// New returns a server.
func New(options Options) *Server {
	id := make([]byte, 16)
	// This never fails: crypto/rand ends the program if there is no randomness.
	_, _ = rand.Read(id)
	s := &Server{
		version:          options.Version,
		bootID:           hex.EncodeToString(id),
		startTime:        time.Now(),
		pidNamespace:     procfs.PIDNamespace(),
		reaper:           options.Reaper,
		launcher:         process.NewLauncher(options.Reaper),
		users:            options.Users,
		countKills:       oom.Open().Kills,
		nullFile:         openNull(),
		log:              options.Log,
		shells:           []string{"/bin/bash", "/bin/sh"},
		after:            realAfter,
		stopping:         make(chan struct{}),
		entrypointExited: make(chan struct{}),
		defaults:         containerEnvironment(options.Environment),
		trees:            make(map[*process.Process]struct{}),
	}
	return s
}

// GetInfo implements AgentService.
func (s *Server) GetInfo(context.Context, *agentv1.GetInfoRequest) (*agentv1.GetInfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &agentv1.GetInfoResponse{
		Version:         s.version,
		ProtocolVersion: ProtocolVersion,
		BootId:          s.bootID,
		StartTime:       timestamppb.New(s.startTime),
		Pid:             int32(os.Getpid()),
		PidNamespace:    s.pidNamespace,
		Configured:      s.configured,
		Entrypoint:      s.entrypoint.status(),
		RunningCommands: s.running.Load(),
	}, nil
}

// Stop ends every process of the container: by SIGTERM, and after grace by SIGKILL. No process is started after the
// call of Stop. Stop returns when all processes have exited, or when the maximum time to wait for killed processes has
// passed. It must be called only once.
func (s *Server) Stop(grace time.Duration) {
	s.startMu.Lock()
	close(s.stopping)
	s.startMu.Unlock()

	s.signalAll(unix.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if s.reaper.WaitIdle(ctx) == nil {
		return
	}
	s.signalAll(unix.SIGKILL)
	ctx, cancel = context.WithTimeout(context.Background(), killTime)
	defer cancel()
	if err := s.reaper.WaitIdle(ctx); err != nil {
		slog.Warn("processes are still running after SIGKILL", "error", err)
	}
}

// signalAll sends a signal to every process of the container. If the agent is not the first process, it signals only
// the process trees that it started.
func (s *Server) signalAll(signal unix.Signal) {
	if os.Getpid() == 1 {
		// For the first process of a pid namespace, -1 means all other processes of the namespace. ESRCH means that
		// there are none.
		if err := unix.Kill(-1, signal); err != nil && err != unix.ESRCH {
			slog.Error("sending a signal to all processes failed", "signal", signal, "error", err)
		}
		return
	}
	s.mu.Lock()
	trees := make([]*process.Process, 0, len(s.trees))
	for tree := range s.trees {
		trees = append(trees, tree)
	}
	s.mu.Unlock()
	for _, tree := range trees {
		if err := tree.SignalTree(signal); err != nil {
			slog.Error("sending a signal to a process tree failed", "signal", signal, "error", err)
		}
	}
}

// start starts a process unless the agent is stopping, and records it until it has exited.
func (s *Server) start(p *plan) (*process.Process, error) {
	s.startMu.RLock()
	defer s.startMu.RUnlock()
	if err := s.checkRunning(); err != nil {
		return nil, err
	}
	started, err := s.launcher.Start(p.spec)
	if err != nil {
		return nil, startError(p, err)
	}
	s.mu.Lock()
	s.trees[started] = struct{}{}
	s.mu.Unlock()
	go func() {
		<-started.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.trees, started)
	}()
	return started, nil
}

// DefaultUser returns the user of commands that do not set one; empty for root.
func (s *Server) DefaultUser() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.defaults.GetUser()
}

// Stopping returns a channel that is closed when Stop is called.
func (s *Server) Stopping() <-chan struct{} { return s.stopping }

func (s *Server) checkRunning() error {
	select {
	case <-s.stopping:
		return errShuttingDown()
	default:
		return nil
	}
}

func errShuttingDown() error {
	return rpcerror.New(codes.Unavailable, reasonShuttingDown, "the sandbox is stopping; create another sandbox")
}

// openNull opens /dev/null for reading, once and early, so that processes of the sandbox cannot replace it. It returns
// -1 if the image has no /dev/null.
func openNull() int {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1
	}
	return fd
}

// realAfter uses the clock of the machine. A timeout of 0 never expires.
func realAfter(timeout time.Duration) (passed <-chan time.Time, cancel func()) {
	if timeout == 0 {
		return nil, func() {}
	}
	timer := time.NewTimer(timeout)
	return timer.C, func() { timer.Stop() }
}
