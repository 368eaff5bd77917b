// Package process starts processes the way a sandbox's commands need it and kills them with all their descendants.
package process

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/procfs"
	"sandpool/agent/internal/reaper"
	"sandpool/agent/internal/users"
)

// MarkerVariable is in the environment of every process that the agent starts; its value tells commands apart.
const MarkerVariable = "SANDPOOL_COMMAND_ID"

// Every started process gets its marker as soft limit RLIMIT_LOCKS, which the kernel has kept but ignored since 2.4.
// It is inherited by all descendants, survives a cleared environment, a new session and the loss of the parent, and is
// readable for every process. Markers begin high enough that nobody sets such a limit for another reason.
const (
	limitLocks  = 0xa
	firstMarker = 1 << 40
)

// Added to the out-of-memory score of every started process for as long as the kernel lets the agent go back: the
// agent dies last, however little memory each process uses.
const oomScoreRaise = 500

// Spec is a process to start.
type Spec struct {
	// Path is the executable's file; no search is made for it.
	Path string
	Argv []string
	// Env is the whole environment, `NAME=value` each; the marker is added.
	Env []string
	// Dir is the working directory, entered as the user that the process runs as.
	Dir      string
	Identity users.Identity
	// Stdin, Stdout and Stderr are the file descriptors to give it. No other is inherited.
	Stdin  int
	Stdout int
	Stderr int
	// Terminal says that Stdin is a terminal, which the process gets as its session's own.
	Terminal bool
}

// Launcher starts processes. There is one per agent.
type Launcher struct {
	reaper   *reaper.Reaper
	markers  atomic.Uint64
	oomScore *oomScore
}

// NewLauncher makes a launcher whose processes the reaper follows.
func NewLauncher(r *reaper.Reaper) *Launcher {
	return &Launcher{reaper: r, oomScore: openOOMScore()}
}

// Process is a started process and the root of a tree.
type Process struct {
	*reaper.Child
	// StartTime is when it was started.
	StartTime time.Time

	marker uint64
	// startTicks is 0 if the process had been reaped or /proc was unreadable right after the start.
	startTicks uint64
}

// Start starts a process in a session of its own, with all signals unblocked and at their defaults. The error is that
// of the system call that failed, a syscall.Errno.
func (l *Launcher) Start(spec Spec) (*Process, error) {
	marker := firstMarker + l.markers.Add(1)
	env := make([]string, 0, len(spec.Env)+1)
	env = append(append(env, spec.Env...), markerEntry(marker))
	attributes := &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   env,
		Files: []uintptr{uintptr(spec.Stdin), uintptr(spec.Stdout), uintptr(spec.Stderr)},
		Sys: &syscall.SysProcAttr{
			Setsid: true, Setctty: spec.Terminal, Ctty: 0, Credential: credential(spec.Identity),
		},
	}
	process := &Process{marker: marker}
	child, err := l.reaper.Start(func() (int, error) {
		// Limits and score are inherited over the fork and put back after it; the reaper lets one fork in at a time.
		defer setLocksLimit(marker)()
		defer l.oomScore.raise()()
		process.StartTime = time.Now()
		pid, err := syscall.ForkExec(spec.Path, spec.Argv, attributes)
		if err == nil {
			if stat, err := procfs.ReadStat(pid); err == nil {
				process.startTicks = stat.StartTicks
			}
		}
		return pid, err
	})
	if err != nil {
		return nil, err
	}
	process.Child = child
	return process, nil
}

// credential is nil when an agent that is not root runs a process as itself, which needs no right.
func credential(identity users.Identity) *syscall.Credential {
	if os.Geteuid() != 0 && int(identity.UID) == os.Geteuid() && int(identity.GID) == os.Getegid() {
		return nil
	}
	return &syscall.Credential{Uid: identity.UID, Gid: identity.GID, Groups: identity.Groups}
}

func markerEntry(marker uint64) string {
	return MarkerVariable + "=" + strconv.FormatUint(marker-firstMarker, 10)
}

// setLocksLimit sets this process's own soft limit and returns what puts it back. Where the limit cannot be set (the
// container was started with a low hard one) the environment is the only marker.
func setLocksLimit(marker uint64) (restore func()) {
	var before unix.Rlimit
	if err := unix.Prlimit(0, limitLocks, nil, &before); err != nil {
		return func() {}
	}
	marked := unix.Rlimit{Cur: marker, Max: before.Max}
	if err := unix.Prlimit(0, limitLocks, &marked, nil); err != nil {
		return func() {}
	}
	return func() {
		// Going back to a limit that was in force before cannot be refused.
		_ = unix.Prlimit(0, limitLocks, &before, nil)
	}
}

// oomScore changes this process's out-of-memory score. The zero value does nothing.
type oomScore struct {
	file   *os.File
	own    []byte
	raised []byte
}

func openOOMScore() *oomScore {
	file, err := os.OpenFile(procfs.Root+"/self/oom_score_adj", os.O_RDWR, 0)
	if err != nil {
		return &oomScore{}
	}
	buffer := make([]byte, 16)
	n, _ := file.ReadAt(buffer, 0)
	var own int
	if _, err := fmt.Sscan(string(buffer[:n]), &own); err != nil {
		file.Close()
		return &oomScore{}
	}
	return &oomScore{
		file:   file,
		own:    []byte(strconv.Itoa(own)),
		raised: []byte(strconv.Itoa(min(own+oomScoreRaise, 1000))),
	}
}

// raise raises the score and returns what puts it back. Any process may raise its score and go back to where a
// privileged one had set it.
func (s *oomScore) raise() (restore func()) {
	if s.file == nil {
		return func() {}
	}
	if _, err := s.file.WriteAt(s.raised, 0); err != nil {
		return func() {}
	}
	return func() {
		// A refusal would leave the agent with the score of its children, which is no worse than without this.
		_, _ = s.file.WriteAt(s.own, 0)
	}
}
