// Package service is what the agent does for the server: AgentService of sandpool.agent.v1.
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

// ProtocolVersion is the version of the contract's behaviour that this agent keeps.
const ProtocolVersion = 4

const (
	maxCommands = 256
	// How long dying processes are followed. One that hangs in the kernel outlives it, and the call ends without it.
	killTime = 5 * time.Second
)

// Options are what a server is made of.
type Options struct {
	// Version of the build.
	Version string
	// Environment that the agent was started with, without what is for it alone.
	Environment []string
	Reaper      *reaper.Reaper
	Users       users.Database
	// Log takes what the entrypoint and the services print. What it returns never waits.
	Log func(source string, stream sandpoolv1.OutputStream) io.WriteCloser
}

// Server implements AgentService. Its methods may be called at any time and concurrently.
type Server struct {
	agentv1.UnimplementedAgentServiceServer

	version      string
	bootID       string
	startTime    time.Time
	pidNamespace string

	reaper   *reaper.Reaper
	launcher *process.Launcher
	users    users.Database
	// countKills reads the kernel's count of out-of-memory kills.
	countKills func() (kills int64, ok bool)
	nullFile   int
	log        func(source string, stream sandpoolv1.OutputStream) io.WriteCloser
	// tees pass the entrypoint's output on; set before it is followed.
	tees []*output.Teed
	// shells are tried for a command line in this order.
	shells []string
	// after is the clock that time-outs go by.
	after func(time.Duration) (passed <-chan time.Time, cancel func())

	running atomic.Int32
	// stopping is closed when Stop begins.
	stopping chan struct{}
	// entrypointEnded is closed once entrypoint.end is set.
	entrypointEnded chan struct{}

	// startMu is held for reading over each start of a process and for writing when stopping begins, so that Stop sees
	// each process or has it refused.
	startMu sync.RWMutex
	// configureMu lets one Configure in at a time.
	configureMu sync.Mutex

	// mu guards what follows; it is never held over a system call that may wait.
	mu          sync.Mutex
	configured  bool
	defaults    *agentv1.Defaults
	environment map[string]string
	// fileLimit is the largest file that processes can write, in bytes; 0 if unlimited.
	fileLimit  int64
	entrypoint entrypoint
	trees      map[*process.Process]struct{}
}

// New makes a server.
func New(options Options) *Server {
	id := make([]byte, 16)
	// Never fails: crypto/rand ends the program where there is no randomness.
	_, _ = rand.Read(id)
	s := &Server{
		version:         options.Version,
		bootID:          hex.EncodeToString(id),
		startTime:       time.Now(),
		pidNamespace:    procfs.PIDNamespace(),
		reaper:          options.Reaper,
		launcher:        process.NewLauncher(options.Reaper),
		users:           options.Users,
		countKills:      oom.Open().Kills,
		nullFile:        openNull(),
		log:             options.Log,
		shells:          []string{"/bin/bash", "/bin/sh"},
		after:           realAfter,
		stopping:        make(chan struct{}),
		entrypointEnded: make(chan struct{}),
		defaults:        containerEnvironment(options.Environment),
		trees:           make(map[*process.Process]struct{}),
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

// Stop ends every process of the container: first by SIGTERM, when grace has passed by SIGKILL. From its begin on
// nothing new is started. It returns when all are gone, or dying processes have been followed long enough. May be
// called once.
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
		slog.Warn("processes are left", "error", err)
	}
}

// signalAll signals every process of the container, or, if others than the agent own it, those that the agent started.
func (s *Server) signalAll(signal unix.Signal) {
	if os.Getpid() == 1 {
		// To the first process of a pid namespace, -1 means all others of that namespace. ESRCH: there are none.
		if err := unix.Kill(-1, signal); err != nil && err != unix.ESRCH {
			slog.Error("cannot signal the processes", "signal", signal, "error", err)
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
			slog.Error("cannot signal a process tree", "signal", signal, "error", err)
		}
	}
}

// start starts a process unless the agent is stopping, and remembers it until it has ended.
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

// DefaultUser is whom commands run as that do not say otherwise; empty for root.
func (s *Server) DefaultUser() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.defaults.GetUser()
}

// Stopping is closed when Stop begins.
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
	return rpcerror.New(codes.Unavailable, reasonShuttingDown, "the sandbox is being stopped")
}

// openNull opens /dev/null for reading once, before the sandbox has a chance to put something else there; -1 if the
// image has none.
func openNull() int {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1
	}
	return fd
}

// realAfter is the clock of the machine; without a time-out nothing ever comes.
func realAfter(timeout time.Duration) (passed <-chan time.Time, cancel func()) {
	if timeout == 0 {
		return nil, func() {}
	}
	timer := time.NewTimer(timeout)
	return timer.C, func() { timer.Stop() }
}
