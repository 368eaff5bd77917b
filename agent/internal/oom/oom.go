// Package oom counts how often the kernel's out-of-memory killer struck in this container.
package oom

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"

	"sandpool/agent/internal/cgroup"
)

var killsFile = cgroup.File{Controller: "memory", Legacy: "memory.oom_control", Unified: "memory.events"}

// Counter reads the kernel's count of out-of-memory kills of this process's memory cgroup.
type Counter struct {
	file *os.File
}

// Open finds the counter: `memory.events` of the unified hierarchy, or `memory.oom_control` of the memory controller's
// own one (cgroup v1, on a hybrid system too). A counter that is not to be found reads as unknown.
func Open() *Counter {
	for _, place := range killsFile.Places() {
		file, err := os.Open(place.Path)
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
