// Package procfs reads what the kernel tells about processes under /proc.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Root is where the proc file system is mounted.
const Root = "/proc"

// Reads are cut here: a process chooses the size of its own environment.
const maxRead = 4 << 20

// Stat is the part of /proc/<pid>/stat that the agent needs.
type Stat struct {
	PID     int
	Parent  int
	Group   int
	Session int
	// StartTicks is when the process started, in clock ticks after boot; with PID it names a process for good.
	StartTicks uint64
	// Dead is set for a process that has ended and waits for being reaped.
	Dead bool
}

// PIDs lists all processes of the pid namespace that /proc is mounted for.
func PIDs() ([]int, error) {
	dir, err := os.Open(Root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// ReadStat reads the state of one process; the error satisfies errors.Is(err, os.ErrNotExist) or is ESRCH when there is
// no such process.
func ReadStat(pid int) (Stat, error) {
	data, err := read(pid, "stat")
	if err != nil {
		return Stat{}, err
	}
	return parseStat(pid, data)
}

// parseStat reads the fields after the program's name, which stands in brackets and may itself hold brackets, spaces
// and line ends.
func parseStat(pid int, data []byte) (Stat, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return Stat{}, fmt.Errorf("process %d: malformed stat", pid)
	}
	// Fields here are counted from the third of proc(5), the state; the start time is the 22nd there.
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 20 {
		return Stat{}, fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	parent, err1 := strconv.Atoi(fields[1])
	group, err2 := strconv.Atoi(fields[2])
	session, err3 := strconv.Atoi(fields[3])
	start, err4 := strconv.ParseUint(fields[19], 10, 64)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Stat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	dead := fields[0] == "Z" || fields[0] == "X" || fields[0] == "x"
	return Stat{PID: pid, Parent: parent, Group: group, Session: session, StartTicks: start, Dead: dead}, nil
}

// LocksLimit is the soft limit RLIMIT_LOCKS of a process; ok is false if it is unlimited or cannot be read. Unlike the
// environment, limits are readable without the right to trace the process.
func LocksLimit(pid int) (limit uint64, ok bool) {
	data, err := read(pid, "limits")
	if err != nil {
		return 0, false
	}
	return parseLocksLimit(data)
}

func parseLocksLimit(data []byte) (limit uint64, ok bool) {
	for line := range strings.Lines(string(data)) {
		rest, found := strings.CutPrefix(line, "Max file locks")
		if !found {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0, false
		}
		limit, err := strconv.ParseUint(fields[0], 10, 64)
		return limit, err == nil
	}
	return 0, false
}

// HasEnvironment says whether a process was started with the variable (`NAME=value`) in its environment. It is false
// too where the environment cannot be read, as with another user's process and without CAP_SYS_PTRACE.
func HasEnvironment(pid int, variable string) bool {
	data, err := read(pid, "environ")
	if err != nil {
		return false
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if string(entry) == variable {
			return true
		}
	}
	return false
}

// LastPID is the id given last to a process or thread of the pid namespace. As long as it stays the same, none has been
// made; ok is false if it cannot be read.
func LastPID() (pid int, ok bool) {
	data, err := os.ReadFile(Root + "/loadavg")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(data))
	if len(fields) < 5 {
		return 0, false
	}
	pid, err = strconv.Atoi(fields[4])
	return pid, err == nil
}

// PIDNamespace names this process's pid namespace, for instance `pid:[4026531836]`; empty if it cannot be read.
func PIDNamespace() string {
	name, err := os.Readlink(Root + "/self/ns/pid")
	if err != nil {
		return ""
	}
	return name
}

func read(pid int, name string) ([]byte, error) {
	file, err := os.Open(Root + "/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxRead))
}
