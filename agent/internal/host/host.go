// Package host prepares this process to be the first process of a container.
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
	// The garbage collector runs when memory has grown by half instead of doubled, because the agent must use little of
	// the sandbox's memory and allocates little.
	collectAtPercent = 50
	// The garbage collector works harder above this limit. The agent exceeds it only with many simultaneous commands
	// with much output.
	softMemoryLimit = 48 << 20
	// Number of threads to create in advance, see reserveThreads.
	spareThreads = 8
	firstOwnFile = 3
	// Default file mode mask of processes.
	umask = 0o022
)

// Prepare prepares this process. Call it once, before the first process is started. Steps that the container does not
// permit are skipped.
func Prepare() {
	runtime.GOMAXPROCS(min(maxProcessors, runtime.NumCPU()))
	debug.SetGCPercent(collectAtPercent)
	debug.SetMemoryLimit(softMemoryLimit)
	reserveThreads(spareThreads)

	unix.Umask(umask)
	// Descriptors that were inherited from the parent must not be inherited by processes of the sandbox.
	if err := unix.CloseRange(firstOwnFile, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		slog.Debug("marking inherited files as close-on-exec failed", "error", err)
	}
	takeSignals()
	if os.Getpid() != 1 {
		// Another process is the first one, for example in a pid namespace that several containers share. As a
		// subreaper the agent gets orphans anyway.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			slog.Warn("becoming a subreaper failed; orphaned processes are not reaped", "error", err)
		}
	}
}

// Hide protects the memory and the environment of the agent from the processes of the sandbox, including those of root:
// tracing and access to /proc/1/mem, environ and fd then require a capability that containers do not have. Processes
// that are started later are not affected, because exec resets the flag. Call it after the agent has opened the files
// that it needs in its /proc directory.
func Hide() {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		slog.Warn("hiding the agent's memory failed; processes of the sandbox may be able to read it", "error", err)
	}
}

// takeSignals catches signals that have no meaning for the agent. New processes start with the default action for
// caught signals, also for signals that were ignored when the agent started. No caught signal can end the agent.
func takeSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGXFSZ, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
}

// reserveThreads makes the Go runtime create threads while the container's process limit is not reached. The runtime
// retains and reuses them. If it needed another thread after the sandbox has reached the limit, the agent would crash.
func reserveThreads(count int) {
	var started, done sync.WaitGroup
	release := make(chan struct{})
	for range count {
		started.Add(1)
		done.Go(func() {
			// A locked goroutine keeps its thread while it waits.
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
