// Command agent is the first process of a sandbox's container. See README.md beside the module.
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
	"sandpool/agent/internal/auth"
	"sandpool/agent/internal/files"
	"sandpool/agent/internal/handover"
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

// What the agent reads of its own environment. Nothing that begins like this reaches another process.
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
	farewellTime       = time.Second
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

// run is the whole program; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	showVersion := flags.Bool("version", false, "print the version and exit")
	listen := flags.String("listen", valueOr(os.Getenv(listenVariable), defaultListen),
		"address to listen on; the default can be set by "+listenVariable)
	grace := flags.Duration("grace", defaultGrace, "time that processes have between SIGTERM and SIGKILL when the agent is stopped")
	together := flags.Bool("end-with-entrypoint", true,
		"when the entrypoint has ended, stop everything else and exit as it did")
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
		fmt.Fprintf(stderr, "%s must hold the SHA-256 of the agent's token: %v\n", tokenVariable, err)
		return exitUsage
	}
	environment := takeEnvironment()
	code, err := serve(*listen, *grace, *together, guard, environment)
	if err != nil {
		slog.Error("cannot serve", "error", err)
		return exitCannotServe
	}
	return code
}

// serve runs until the agent is told to stop or, if the two belong together, the entrypoint has ended. It returns the
// exit code.
func serve(listen string, grace time.Duration, together bool, guard *auth.Guard, environment []string) (int, error) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	host.Prepare()
	fitBuffers()
	children := reaper.New()
	book := logs.New(time.Now)
	server := service.New(service.Options{
		Version: version, Environment: environment, Reaper: children, Users: users.System, Log: book.Log,
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
	sandpoolv1.RegisterMonitorServiceServer(rpc, monitor.New(book, server.Stopping()))
	failed := make(chan error, 1)
	go func() { failed <- serveConnections(listener, rpc, server, guard) }()
	slog.Info("listening", "address", listener.Addr().String(), "version", version, "pid", os.Getpid())

	var ended <-chan struct{}
	if together {
		ended = server.EntrypointEnded()
	}
	code := 0
	select {
	case err := <-failed:
		return 0, err
	case cause := <-stop:
		slog.Info("stopping", "signal", cause.String())
	case <-ended:
		code = server.EntrypointExitCode()
		slog.Info("stopping with the entrypoint", "exit_code", code)
	}
	server.Stop(grace)
	farewell(rpc)
	return code, nil
}

// serveConnections tells hand-overs from gRPC by how a connection begins. It returns when the first of them fails.
func serveConnections(listener net.Listener, rpc *grpc.Server, server *service.Server, guard *auth.Guard) error {
	// A process of the sandbox itself may open connections too; more than these wait in the kernel.
	both := cmux.New(netutil.LimitListener(listener, maxConnections))
	both.SetReadTimeout(handshakeTime)
	handovers := both.Match(cmux.PrefixMatcher(handover.Preamble))
	calls := both.Match(cmux.Any())
	taker := &handover.Server{
		Allows: guard.Allows, Configure: server.Configure, MaxRequestBytes: maxRequestBytes, Timeout: handshakeTime,
	}
	failed := make(chan error, 3)
	go func() { failed <- taker.Serve(handovers) }()
	go func() { failed <- rpc.Serve(calls) }()
	go func() { failed <- both.Serve() }()
	return <-failed
}

// fitBuffers lets messages have buffers of about their size. By default one of 64 KiB of content gets 1 MiB, which is
// cleared for each: that took a third of the time of a file's way.
func fitBuffers() {
	const head = 1 << 10 // What a message has beside its content.
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
		// Buffers are only held by connections that write at the moment.
		grpc.SharedWriteBuffer(true),
		// The first notices a server that vanished without a word, so that its commands are killed; the second allows
		// the server to do the same.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveInterval, Timeout: keepaliveTolerance}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
	)
	return grpc.NewServer(options...)
}

// farewell lets calls that end with their processes send their answers, but waits for nobody long.
func farewell(rpc *grpc.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	context.AfterFunc(ctx, rpc.Stop)
	rpc.GracefulStop()
}

// takeEnvironment returns the environment without the agent's own variables and removes those.
func takeEnvironment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, environmentPrefix) {
			kept = append(kept, entry)
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			slog.Error("cannot unset a variable", "name", name, "error", err)
		}
	}
	return kept
}

func valueOr(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
