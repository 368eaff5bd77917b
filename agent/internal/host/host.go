// Package host puts this process into the state that the first process of a container needs to be in.
package host

import (
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	maxProcessors = 2
	// Collect at half again the live memory instead of double: the agent's share of a sandbox's memory is to stay
	// small, and it has little to collect.
	collectAtPercent = 50
	// Beyond this the collector works harder; it is far above what the agent needs but for many commands with much
	// output at once.
	softMemoryLimit = 48 << 20
	// Threads made at once, see reserveThreads.
	spareThreads = 8
	firstOwnFile = 3
	// Default file mode mask of processes.
	umask = 0o022
)

// Prepare is called once, before the first process is started. What the container does not permit is left out.
func Prepare() {
	runtime.GOMAXPROCS(min(maxProcessors, runtime.NumCPU()))
	debug.SetGCPercent(collectAtPercent)
	debug.SetMemoryLimit(softMemoryLimit)
	reserveThreads(spareThreads)

	unix.Umask(umask)
	// Whatever was left open by whoever started the agent ends here and is not handed on.
	if err := unix.CloseRange(firstOwnFile, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		slog.Debug("cannot mark inherited files", "error", err)
	}
	takeSignals()
	if os.Getpid() != 1 {
		// Somebody else is first (a pid namespace shared by several containers): orphans shall come here all the same.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			slog.Warn("cannot become a subreaper", "error", err)
		}
	}
}

// Hide keeps the memory and environment of the agent from the sandbox's processes, those of root included: tracing and
// /proc/1/mem, environ and fd then need a capability that containers lack. Processes started later are not affected,
// for an exec makes them visible again. To be called when the agent has opened what it needs of its own in /proc.
func Hide() {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		slog.Warn("cannot hide the agent's memory", "error", err)
	}
}

// takeSignals catches signals that mean nothing here. Caught ones are back at their defaults in each new process, also
// those that the agent itself was started with as ignored; and none of them can end the agent by mistake.
func takeSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGXFSZ, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
}

// reserveThreads makes the runtime create threads while the container can still have some. It keeps and reuses them;
// one that it needs and cannot get, because the sandbox has used up its limit of processes, would end the agent.
func reserveThreads(count int) {
	var started, done sync.WaitGroup
	release := make(chan struct{})
	for range count {
		started.Add(1)
		done.Go(func() {
			// A locked goroutine keeps its thread even while it waits.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			<-release
		})
	}
	started.Wait()
	close(release)
	done.Wait()
}
