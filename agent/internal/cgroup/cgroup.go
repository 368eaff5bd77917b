// Package cgroup finds the files by which the kernel tells of this container's control groups.
package cgroup

import (
	"os"
	"path/filepath"
	"strings"
)

// File names one file of a controller in both hierarchies.
type File struct {
	// Controller is the controller's name, such as memory.
	Controller string
	// Legacy is the file's name where the controller has a hierarchy of its own (cgroup v1).
	Legacy string
	// Unified is its name in the unified hierarchy (cgroup v2).
	Unified string
}

// Place is where a File may be.
type Place struct {
	Path string
	// Legacy is whether it is the one of cgroup v1.
	Legacy bool
}

// Places lists where the file may be, the likeliest first. Nothing where /proc cannot be read.
func (f File) Places() []Place {
	mounts, err1 := os.ReadFile("/proc/self/mountinfo")
	groups, err2 := os.ReadFile("/proc/self/cgroup")
	if err1 != nil || err2 != nil {
		return nil
	}
	return f.candidates(string(mounts), string(groups))
}

// candidates lists where the file may be, given /proc/self/mountinfo and /proc/self/cgroup. The controller's own
// hierarchy comes first: where it is mounted, the unified one does not have the controller.
func (f File) candidates(mountinfo, cgroup string) []Place {
	var legacy, unified []Place
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !found || len(head) < 5 || len(tail) < 3 {
			continue
		}
		root, mountPoint := head[3], head[4]
		switch {
		case tail[0] == "cgroup2":
			for _, path := range inMount(mountPoint, root, groupPath(cgroup, ""), f.Unified) {
				unified = append(unified, Place{Path: path})
			}
		case tail[0] == "cgroup" && hasItem(tail[2], f.Controller):
			for _, path := range inMount(mountPoint, root, groupPath(cgroup, f.Controller), f.Legacy) {
				legacy = append(legacy, Place{Path: path, Legacy: true})
			}
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
