// Package oom counts the kills of the kernel's out-of-memory killer in this container.
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

// Counter reads the kernel's count of out-of-memory kills in the memory cgroup of this process.
type Counter struct {
	file *os.File
}

// Open finds the counter: `memory.events` of the unified hierarchy, or `memory.oom_control` of the memory controller's
// own hierarchy (cgroup v1, also on a hybrid system). If it is not found, Kills returns false.
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

// Kills returns the number of kills since the container started. ok is false if the number is unknown.
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

// parse returns the value of the line `oom_kill N`, which exists in both hierarchies.
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
