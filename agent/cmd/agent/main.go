// Command agent is the first process of a sandbox's container. README.md describes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"

	agentv1 "sandpool/agent/gen/sandpool/agent/v1"
	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/activation"
	"sandpool/agent/internal/auth"
	"sandpool/agent/internal/files"
	"sandpool/agent/internal/host"
	"sandpool/agent/internal/logs"
	"sandpool/agent/internal/monitor"
	"sandpool/agent/internal/reaper"
	"sandpool/agent/internal/service"
	"sandpool/agent/internal/tunnel"
	"sandpool/agent/internal/users"
)

// version is set by the linker: -ldflags "-X main.version=…".
var version = "dev"

// Environment variables of the agent. Variables with this prefix are not passed to other processes.
const (
	environmentPrefix  = "SANDPOOL_"
	tokenVariable      = "SANDPOOL_AGENT_TOKEN_SHA256"
	listenVariable     = "SANDPOOL_AGENT_LISTEN"
	defaultListen      = "0.0.0.0:10240"
	defaultGrace       = 3 * time.Second
	maxRequestBytes    = 8 << 20
	maxResponseBytes   = 20 << 20
	maxConnections     = 64
	maxStreams         = 1024
	finishCallsTime    = time.Second
	handshakeTime      = 10 * time.Second
	exitUsage          = 2
	exitCannotServe    = 1
	keepaliveMinimum   = 10 * time.Second
	keepaliveInterval  = 30 * time.Second
	keepaliveTolerance = 10 * time.Second
)

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run runs the program and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	showVersion := flags.Bool("version", false, "print the version and exit")
	listen := flags.String("listen", valueOr(os.Getenv(listenVariable), defaultListen),
		"address to listen on; "+listenVariable+" sets the default")
	grace := flags.Duration("grace", defaultGrace, "time between SIGTERM and SIGKILL for processes when the agent stops")
	exitWithEntrypoint := flags.Bool("exit-with-entrypoint", true,
		"stop all processes and exit with the exit code of the entrypoint when the entrypoint exits")
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitUsage
	}
	if *showVersion {
		fmt.Fprintln(stdout, version)
		return 0
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(stderr, nil)).With("component", "sandpool-agent"))
	guard, err := auth.NewGuard(os.Getenv(tokenVariable))
	if err != nil {
		fmt.Fprintf(stderr, "%s is invalid: %v; set it to the SHA-256 of the agent's token\n", tokenVariable, err)
		return exitUsage
	}
	environment := takeEnvironment()
	code, err := serve(*listen, *grace, *exitWithEntrypoint, guard, environment)
	if err != nil {
		slog.Error("serving failed", "error", err)
		return exitCannotServe
	}
	return code
}

// serve serves until the agent gets a signal to stop or, if exitWithEntrypoint is set, the entrypoint has exited. It
// returns the exit code.
func serve(listen string, grace time.Duration, exitWithEntrypoint bool, guard *auth.Guard, environment []string) (int, error) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	host.Prepare()
	fitBuffers()
	children := reaper.New()
	buffer := logs.New(time.Now)
	server := service.New(service.Options{
		Version: version, Environment: environment, Reaper: children, Users: users.System, Log: buffer.Log,
	})
	host.Hide()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return 0, err
	}
	rpc := newRPCServer(guard)
	agentv1.RegisterAgentServiceServer(rpc, server)
	sandpoolv1.RegisterFileServiceServer(rpc, files.New(files.Options{
		Users: users.System, DefaultUser: server.DefaultUser, Stopping: server.Stopping(),
	}))
	sandpoolv1.RegisterProcessServiceServer(rpc, server.Processes())
	sandpoolv1.RegisterPortServiceServer(rpc, tunnel.New(listener.Addr().(*net.TCPAddr).Port))
	sandpoolv1.RegisterMonitorServiceServer(rpc, monitor.New(buffer, server.Stopping()))
	failed := make(chan error, 1)
	go func() { failed <- serveConnections(listener, rpc, server, guard) }()
	slog.Info("listening", "address", listener.Addr().String(), "version", version, "pid", os.Getpid())

	var exited <-chan struct{}
	if exitWithEntrypoint {
		exited = server.EntrypointExited()
	}
	code := 0
	select {
	case err := <-failed:
		return 0, err
	case cause := <-stop:
		slog.Info("stopping", "signal", cause.String())
	case <-exited:
		code = server.EntrypointExitCode()
		slog.Info("stopping because the entrypoint exited", "exit_code", code)
	}
	server.Stop(grace)
	finishCalls(rpc)
	return code, nil
}

// serveConnections separates activations from gRPC by the first bytes of a connection. It returns the first error of a
// server.
func serveConnections(listener net.Listener, rpc *grpc.Server, server *service.Server, guard *auth.Guard) error {
	// Processes of the sandbox can open connections too. Further connections wait in the kernel.
	multiplexer := cmux.New(netutil.LimitListener(listener, maxConnections))
	multiplexer.SetReadTimeout(handshakeTime)
	activations := multiplexer.Match(cmux.PrefixMatcher(activation.Preamble))
	calls := multiplexer.Match(cmux.Any())
	activator := &activation.Server{
		Allows: guard.Allows, Configure: server.Configure, MaxRequestBytes: maxRequestBytes, Timeout: handshakeTime,
	}
	failed := make(chan error, 3)
	go func() { failed <- activator.Serve(activations) }()
	go func() { failed <- rpc.Serve(calls) }()
	go func() { failed <- multiplexer.Serve() }()
	return <-failed
}

// fitBuffers sets buffer sizes that fit the messages. With the defaults a message with 64 KiB of content gets a buffer
// of 1 MiB, and clearing it took a third of the time of a file transfer.
func fitBuffers() {
	const head = 1 << 10 // Size of a message without its content.
	experimental.SetDefaultBufferPool(mem.NewTieredBufferPool(256, 4<<10, 16<<10, 32<<10,
		64<<10+head, 128<<10+head, 256<<10+head, 512<<10+head, 1<<20+head, 2<<20+head, 4<<20+head))
}

func newRPCServer(guard *auth.Guard) *grpc.Server {
	options := append(guard.ServerOptions(),
		files.ServerOption(),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxSendMsgSize(maxResponseBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTime),
		// Only connections that are writing hold a buffer.
		grpc.SharedWriteBuffer(true),
		// The first option detects a server that has vanished, so that its commands are killed. The second option
		// permits the server to do the same.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveInterval, Timeout: keepaliveTolerance}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
	)
	return grpc.NewServer(options...)
}

// finishCalls waits a limited time for calls to send their responses after their processes have exited.
func finishCalls(rpc *grpc.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), finishCallsTime)
	defer cancel()
	context.AfterFunc(ctx, rpc.Stop)
	rpc.GracefulStop()
}

// takeEnvironment removes the variables of the agent from its environment and returns the other variables.
func takeEnvironment() []string {
	var others []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, environmentPrefix) {
			others = append(others, entry)
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			slog.Error("removing a variable from the environment failed", "name", name, "error", err)
		}
	}
	return others
}

func valueOr(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
