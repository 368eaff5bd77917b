// Package procfs reads information about processes from /proc.
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

// Root is the mount point of the proc file system.
const Root = "/proc"

// Maximum number of bytes to read, because a process can choose the size of its environment.
const maxRead = 4 << 20

// Stat contains the fields of /proc/<pid>/stat that the agent uses.
type Stat struct {
	PID     int
	Parent  int
	Group   int
	Session int
	// StartTicks is the start time of the process in clock ticks after boot. Together with PID it identifies a process
	// permanently.
	StartTicks uint64
	// Dead is set for a process that has exited and was not reaped yet.
	Dead bool
}

// PIDs returns the ids of all processes in the pid namespace of /proc.
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

// ReadStat reads the state of a process. If the process does not exist, the error is ESRCH or satisfies errors.Is(err,
// os.ErrNotExist).
func ReadStat(pid int) (Stat, error) {
	data, err := read(pid, "stat")
	if err != nil {
		return Stat{}, err
	}
	return parseStat(pid, data)
}

// parseStat reads the fields after the name of the program. The name is in parentheses and can contain parentheses,
// spaces and line feeds.
func parseStat(pid int, data []byte) (Stat, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return Stat{}, fmt.Errorf("process %d: malformed stat", pid)
	}
	// fields[0] is the third field of proc(5), the state. The start time is field 22 in proc(5).
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 20 {
		return Stat{}, fmt.Errorf("process %d: stat has %d fields, want at least 22", pid, len(fields)+2)
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

// LocksLimit returns the soft limit RLIMIT_LOCKS of a process. ok is false if it is unlimited or cannot be read. Unlike
// the environment, limits can be read without the permission to trace the process.
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

// HasEnvironment reports whether a process was started with the variable (`NAME=value`) in its environment. It returns
// false too if the environment cannot be read, for example that of another user's process without CAP_SYS_PTRACE.
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

// LastPID returns the last id that was assigned to a process or thread of the pid namespace. While it does not change,
// no process was created. ok is false if it cannot be read.
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

// PIDNamespace returns the name of the pid namespace of this process, for example `pid:[4026531836]`. It is empty if it
// cannot be read.
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
