package process

import (
	"context"
	"errors"
	"maps"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/procfs"
)

// Time between two looks at /proc while a tree is dying. The kernel reports the end of a process to its parent alone,
// which the agent often is not, so there is nothing to wait for but the clock.
const (
	firstSweepPause = time.Millisecond
	longSweepPause  = 20 * time.Millisecond
	// Empty sweeps in a row that are believed while other processes come and go.
	emptySweeps = 5
)

// KillTree kills the process and all its descendants with SIGKILL, looking again until none is left or ctx ends; then
// the error is that of ctx.
//
// A process belongs to the tree if it carries the tree's marker as a limit or in its environment, descends from a member
// by an unbroken chain of parents, or is in the root's session or process group. So a process escapes only if it
// has done all of this on purpose: changed RLIMIT_LOCKS, replaced its environment (or is being replaced by another
// program just then), begun a session of its own, and outlived its parent. It could then harm nobody but its own sandbox, and ends with the container.
//
// Whole process groups are killed at once, which the kernel does atomically with respect to fork, so a fork bomb that
// stays in its group cannot outrun the sweeps. A process that hands over to a child and ends while /proc is being read
// can hide from one sweep, so an empty one counts only if no process at all was made in the meantime; in a container
// that never rests, several of them in a row do.
func (p *Process) KillTree(ctx context.Context) error {
	pause := firstSweepPause
	empty := 0
	seen := make(map[int]procfs.Stat)
	for {
		lastBefore, knownBefore := procfs.LastPID()
		left, err := p.signalTree(unix.SIGKILL, seen)
		if err != nil {
			// Without /proc the root's own process group is all that can be found.
			_ = unix.Kill(-p.PID, unix.SIGKILL)
			return err
		}
		if left == 0 {
			empty++
			lastAfter, knownAfter := procfs.LastPID()
			quiet := knownBefore && knownAfter && lastBefore == lastAfter
			if quiet || empty == emptySweeps {
				return nil
			}
		} else {
			empty = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, longSweepPause)
	}
}

// Signal sends a signal to the process itself. The error is ESRCH when it is gone.
func (p *Process) Signal(signal unix.Signal) error {
	stat, err := procfs.ReadStat(p.PID)
	if err != nil || stat.Dead || (p.startTicks != 0 && stat.StartTicks != p.startTicks) {
		return unix.ESRCH
	}
	signalOne(stat, signal)
	return nil
}

// SignalTree sends a signal once to each process of the tree.
func (p *Process) SignalTree(signal unix.Signal) error {
	_, err := p.signalTree(signal, make(map[int]procfs.Stat))
	return err
}

// signalTree signals the tree's processes as they are now, says how many there are and adds them to seen.
func (p *Process) signalTree(signal unix.Signal, seen map[int]procfs.Stat) (members int, err error) {
	stats, err := liveProcesses()
	if err != nil {
		return 0, err
	}
	tree := p.members(stats, seen)
	maps.Copy(seen, tree)
	if signal == unix.SIGKILL {
		groups := make(map[int]bool)
		for _, stat := range tree {
			groups[stat.Group] = true
		}
		delete(groups, unix.Getpgrp())
		for group := range groups {
			// Each tree begins with a session of its own and groups do not span sessions, so a group with one member
			// of the tree holds no stranger. Groups 0 and 1 would mean something else to kill(2).
			if group > 1 {
				_ = unix.Kill(-group, signal)
			}
		}
	}
	for _, stat := range tree {
		signalOne(stat, signal)
	}
	return len(tree), nil
}

// signalOne signals the process that was seen and no later one with its number.
func signalOne(seen procfs.Stat, signal unix.Signal) {
	fd, err := unix.PidfdOpen(seen.PID, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// A kernel, or a filter of system calls, from before process descriptors.
		_ = unix.Kill(seen.PID, signal)
		return
	}
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if now, err := procfs.ReadStat(seen.PID); err == nil && now.StartTicks == seen.StartTicks {
		_ = unix.PidfdSendSignal(fd, signal, nil, 0)
	}
}

// members picks the tree's processes out of all. One seen as a member before is one until it is gone: when it is dying
// its environment cannot be read any more.
func (p *Process) members(stats, seen map[int]procfs.Stat) map[int]procfs.Stat {
	tree := make(map[int]procfs.Stat)
	entry := markerEntry(p.marker)
	// The number of the root names its session and group only as long as it is still the root's: until it is reaped,
	// and after that until another process gets it.
	root, rootAlive := stats[p.PID]
	foreign := rootAlive && p.startTicks != 0 && root.StartTicks != p.startTicks
	for pid, stat := range stats {
		switch {
		case !foreign && (pid == p.PID || stat.Session == p.PID || stat.Group == p.PID):
			tree[pid] = stat
		case seen[pid].StartTicks != 0 && seen[pid].StartTicks == stat.StartTicks:
			tree[pid] = stat
		case p.isMarked(pid, entry):
			tree[pid] = stat
		}
	}
	for grown := true; grown; {
		grown = false
		for pid, stat := range stats {
			if _, in := tree[pid]; in {
				continue
			}
			if _, parentIn := tree[stat.Parent]; parentIn {
				tree[pid] = stat
				grown = true
			}
		}
	}
	return tree
}

func (p *Process) isMarked(pid int, entry string) bool {
	if limit, ok := procfs.LocksLimit(pid); ok && limit >= firstMarker {
		return limit == p.marker
	}
	return procfs.HasEnvironment(pid, entry)
}

// liveProcesses is every process but this one and those that have ended already.
func liveProcesses() (map[int]procfs.Stat, error) {
	pids, err := procfs.PIDs()
	if err != nil {
		return nil, err
	}
	stats := make(map[int]procfs.Stat, len(pids))
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		// One that has gone since the listing is no error.
		if stat, err := procfs.ReadStat(pid); err == nil && !stat.Dead {
			stats[pid] = stat
		}
	}
	return stats, nil
}
