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

// Pauses between two sweeps over /proc while a tree is being killed. The kernel reports the exit of a process only to
// its parent, which is often not the agent, so the agent must poll.
const (
	minSweepPause = time.Millisecond
	maxSweepPause = 20 * time.Millisecond
	// Number of consecutive empty sweeps after which a tree counts as killed even if other processes were started.
	emptySweeps = 5
)

// KillTree kills the process and all of its descendants with SIGKILL. It repeats the sweep over /proc until no process
// is left, or until ctx ends; then it returns the error of ctx.
//
// A process belongs to the tree if it has the tree's marker as a limit or in its environment, is connected to a process
// of the tree by an unbroken chain of parents, or is in the session or the process group of the root. So a process
// escapes only if it did all of the following: changed RLIMIT_LOCKS, replaced its environment (or is executing another
// program at this moment), created a new session, and outlived its parent. Such a process can affect its own sandbox
// only, and ends with the container.
//
// Complete process groups are killed at once. The kernel does this atomically with respect to fork, so a fork bomb that
// stays in its group cannot escape the sweeps. A process that starts a child and exits while /proc is read can be
// missed by one sweep. So an empty sweep counts only if no process was created during it; in a container that creates
// processes continuously, several consecutive empty sweeps count.
func (p *Process) KillTree(ctx context.Context) error {
	pause := minSweepPause
	empty := 0
	seen := make(map[int]procfs.Stat)
	for {
		lastBefore, knownBefore := procfs.LastPID()
		left, err := p.signalTree(unix.SIGKILL, seen)
		if err != nil {
			// Without /proc only the process group of the root can be found.
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
		pause = min(2*pause, maxSweepPause)
	}
}

// Signal sends a signal to the process itself. The error is ESRCH if the process has exited.
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

// signalTree sends a signal to the current processes of the tree, returns their number and adds them to seen.
func (p *Process) signalTree(signal unix.Signal, seen map[int]procfs.Stat) (count int, err error) {
	stats, err := liveProcesses()
	if err != nil {
		return 0, err
	}
	tree := p.treeOf(stats, seen)
	maps.Copy(seen, tree)
	if signal == unix.SIGKILL {
		groups := make(map[int]bool)
		for _, stat := range tree {
			groups[stat.Group] = true
		}
		delete(groups, unix.Getpgrp())
		for group := range groups {
			// Each tree starts with a new session, and groups do not span sessions, so a group that contains a process
			// of the tree contains no process of another tree. kill(2) interprets groups 0 and 1 differently.
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

// signalOne sends a signal to the process that was seen, but not to a later process with the same id.
func signalOne(seen procfs.Stat, signal unix.Signal) {
	fd, err := unix.PidfdOpen(seen.PID, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// The kernel or a system call filter does not support process descriptors.
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

// treeOf selects the processes of the tree. A process that was seen in the tree belongs to it until it has ended:
// the environment of an exiting process can no longer be read.
func (p *Process) treeOf(stats, seen map[int]procfs.Stat) map[int]procfs.Stat {
	tree := make(map[int]procfs.Stat)
	entry := markerEntry(p.marker)
	// The id of the root identifies its session and its group only while no other process has this id.
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

// liveProcesses returns all processes except the agent and processes that have exited.
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
		// A process that exited after the listing is not an error.
		if stat, err := procfs.ReadStat(pid); err == nil && !stat.Dead {
			stats[pid] = stat
		}
	}
	return stats, nil
}
