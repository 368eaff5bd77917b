// Package process starts the processes of a sandbox and kills them with all of their descendants.
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

// MarkerVariable is in the environment of every process that the agent starts. Its value identifies the process tree.
const MarkerVariable = "SANDPOOL_PROCESS_MARKER"

// The soft limit RLIMIT_LOCKS of every started process is set to its marker. The kernel has stored but ignored this
// limit since version 2.4. All descendants inherit it; it survives a cleared environment, a new session and the exit of
// the parent; and every process can read it. Markers start at a value that is not used as a real limit.
const (
	limitLocks  = 0xa
	firstMarker = 1 << 40
)

// Added to the out-of-memory score of every started process, so that the kernel kills the agent last, however little
// memory a process uses.
const oomScoreRaise = 500

// Spec describes a process to start.
type Spec struct {
	// Path is the path of the executable. It is not searched on PATH.
	Path string
	Argv []string
	// Env is the complete environment, each entry as `NAME=value`. The marker is added to it.
	Env []string
	// Dir is the working directory. The process enters it as the user that it runs as.
	Dir      string
	Identity users.Identity
	// Stdin, Stdout and Stderr are the file descriptors of the process. It inherits no other descriptor.
	Stdin  int
	Stdout int
	Stderr int
	// Terminal is set if Stdin is a terminal that becomes the controlling terminal of the process.
	Terminal bool
}

// Launcher starts processes. An agent has one launcher.
type Launcher struct {
	reaper   *reaper.Reaper
	markers  atomic.Uint64
	oomScore *oomScore
}

// NewLauncher returns a launcher whose processes the reaper waits for.
func NewLauncher(r *reaper.Reaper) *Launcher {
	return &Launcher{reaper: r, oomScore: openOOMScore()}
}

// Process is a started process and the root of a process tree.
type Process struct {
	*reaper.Child
	// StartTime is the time at which the process was started.
	StartTime time.Time

	marker uint64
	// startTicks is 0 if the process was reaped, or /proc was not readable, right after the start.
	startTicks uint64
}

// Start starts a process in a new session, with all signals unblocked and with default actions. The error is a
// syscall.Errno: the error of the system call that failed.
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
		// The process inherits limit and score at the fork; then they are restored. The reaper serializes forks.
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

// credential returns nil if an agent that is not root runs a process as its own user, which requires no privilege.
func credential(identity users.Identity) *syscall.Credential {
	if os.Geteuid() != 0 && int(identity.UID) == os.Geteuid() && int(identity.GID) == os.Getegid() {
		return nil
	}
	return &syscall.Credential{Uid: identity.UID, Gid: identity.GID, Groups: identity.Groups}
}

func markerEntry(marker uint64) string {
	return MarkerVariable + "=" + strconv.FormatUint(marker-firstMarker, 10)
}

// setLocksLimit sets the soft limit of this process and returns a function that restores it. If the limit cannot be set
// because the container was started with a low hard limit, the environment is the only marker.
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
		// Restoring a previous limit cannot fail.
		_ = unix.Prlimit(0, limitLocks, &before, nil)
	}
}

// oomScore changes the out-of-memory score of this process. The zero value does nothing.
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

// raise raises the score and returns a function that restores it. Every process can raise its score, and lower it to
// the value that a privileged process set.
func (s *oomScore) raise() (restore func()) {
	if s.file == nil {
		return func() {}
	}
	if _, err := s.file.WriteAt(s.raised, 0); err != nil {
		return func() {}
	}
	return func() {
		// If this fails, the agent keeps the score of its children. This is acceptable: it is the state without this
		// function.
		_, _ = s.file.WriteAt(s.own, 0)
	}
}
