// Package cgroup finds the files of the control groups of this container.
package cgroup

import (
	"os"
	"path/filepath"
	"strings"
)

// File names a file of a controller in both hierarchies.
type File struct {
	// Controller is the name of the controller, for example memory.
	Controller string
	// Legacy is the name of the file in the hierarchy of the controller (cgroup v1).
	Legacy string
	// Unified is the name of the file in the unified hierarchy (cgroup v2).
	Unified string
}

// Place is a possible location of a File.
type Place struct {
	Path string
	// Legacy is set for a location in cgroup v1.
	Legacy bool
}

// Places returns the possible locations of the file, the most likely one first. It returns none if /proc cannot be
// read.
func (f File) Places() []Place {
	mounts, err1 := os.ReadFile("/proc/self/mountinfo")
	groups, err2 := os.ReadFile("/proc/self/cgroup")
	if err1 != nil || err2 != nil {
		return nil
	}
	return f.candidates(string(mounts), string(groups))
}

// candidates returns the possible locations of the file for the contents of /proc/self/mountinfo and /proc/self/cgroup.
// The controller's own hierarchy comes first: if it is mounted, the unified hierarchy does not have the controller.
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

// inMount returns the possible paths of a cgroup's file in a mount of a hierarchy or of a part of it. If the group is
// outside of the mounted part, the file is in the mount point: a process in a container sees this path if its cgroup is
// mounted as the root.
func inMount(mountPoint, root, group, name string) []string {
	paths := make([]string, 0, 2)
	if relative, err := filepath.Rel(root, group); err == nil && relative != ".." && !strings.HasPrefix(relative, "../") {
		paths = append(paths, filepath.Join(mountPoint, relative, name))
	}
	return append(paths, filepath.Join(mountPoint, name))
}

// groupPath returns the path of the process's cgroup. The line of the unified hierarchy has no controllers.
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
