// Package oom counts how often the kernel's out-of-memory killer struck in this container.
package oom

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Counter reads the kernel's count of out-of-memory kills of this process's memory cgroup.
type Counter struct {
	file *os.File
}

// Open finds the counter: `memory.events` of the unified hierarchy, or `memory.oom_control` of the memory controller's
// own one (cgroup v1, on a hybrid system too). A counter that is not to be found reads as unknown.
func Open() *Counter {
	mounts, err1 := os.ReadFile("/proc/self/mountinfo")
	groups, err2 := os.ReadFile("/proc/self/cgroup")
	if err1 != nil || err2 != nil {
		return &Counter{}
	}
	for _, path := range candidates(string(mounts), string(groups)) {
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		counter := &Counter{file: file}
		if _, ok := counter.Kills(); ok {
			return counter
		}
		file.Close()
	}
	return &Counter{}
}

// Kills is the number of kills since the container started; ok is false if it cannot be known.
func (c *Counter) Kills() (kills int64, ok bool) {
	if c.file == nil {
		return 0, false
	}
	buffer := make([]byte, 1024)
	n, err := c.file.ReadAt(buffer, 0)
	if err != nil && err != io.EOF {
		return 0, false
	}
	return parse(buffer[:n])
}

// parse finds the line `oom_kill N`, which both hierarchies have.
func parse(data []byte) (kills int64, ok bool) {
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		name, value, found := strings.Cut(scanner.Text(), " ")
		if found && name == "oom_kill" {
			kills, err := strconv.ParseInt(value, 10, 64)
			return kills, err == nil
		}
	}
	return 0, false
}

// candidates lists where the counter may be, given /proc/self/mountinfo and /proc/self/cgroup. The memory controller's
// own hierarchy comes first: where it is mounted, the unified one has no memory controller.
func candidates(mountinfo, cgroup string) []string {
	var legacy, unified []string
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !found || len(head) < 5 || len(tail) < 3 {
			continue
		}
		root, mountPoint := head[3], head[4]
		switch {
		case tail[0] == "cgroup2":
			unified = append(unified, inMount(mountPoint, root, groupPath(cgroup, ""), "memory.events")...)
		case tail[0] == "cgroup" && hasItem(tail[2], "memory"):
			legacy = append(legacy, inMount(mountPoint, root, groupPath(cgroup, "memory"), "memory.oom_control")...)
		}
	}
	return append(legacy, unified...)
}

// inMount says where a cgroup's file is in a mount of (part of) its hierarchy. A path outside of the mounted part is
// how it looks to a process in a container whose own cgroup is mounted as the root.
func inMount(mountPoint, root, group, name string) []string {
	paths := make([]string, 0, 2)
	if relative, err := filepath.Rel(root, group); err == nil && relative != ".." && !strings.HasPrefix(relative, "../") {
		paths = append(paths, filepath.Join(mountPoint, relative, name))
	}
	return append(paths, filepath.Join(mountPoint, name))
}

// groupPath finds a process's cgroup; the unified hierarchy is the one without controllers' names.
func groupPath(cgroup, controller string) string {
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) == 3 && (fields[1] == controller || controller != "" && hasItem(fields[1], controller)) {
			return fields[2]
		}
	}
	return "/"
}

func hasItem(list, item string) bool {
	for entry := range strings.SplitSeq(list, ",") {
		if entry == item {
			return true
		}
	}
	return false
}
