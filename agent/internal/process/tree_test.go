package process

import (
	"maps"
	"slices"
	"testing"

	"sandpool/agent/internal/procfs"
	"sandpool/agent/internal/reaper"
)

// Ids that no real process has, so that neither the limit nor the environment is found.
const (
	rootPID = 1<<30 + iota
	childPID
	grandchildPID
	orphanPID
	strangerPID
)

func TestTreeOfSelectsTheProcessesOfTheTree(t *testing.T) {
	root := &Process{Child: &reaper.Child{PID: rootPID}, marker: firstMarker + 1, startTicks: 100}
	for name, test := range map[string]struct {
		now, seen []procfs.Stat
		want      []int
	}{
		"by parents": {
			now: []procfs.Stat{
				{PID: grandchildPID, Parent: childPID, Session: grandchildPID, StartTicks: 102},
				{PID: rootPID, Parent: 1, Session: rootPID, StartTicks: 100},
				{PID: childPID, Parent: rootPID, Session: childPID, StartTicks: 101},
				{PID: strangerPID, Parent: 1, Session: strangerPID, StartTicks: 90},
			},
			want: []int{rootPID, childPID, grandchildPID},
		},
		"by session, after the root has ended": {
			now: []procfs.Stat{
				{PID: orphanPID, Parent: 1, Session: rootPID, StartTicks: 103},
				{PID: strangerPID, Parent: 1, Session: strangerPID, StartTicks: 90},
			},
			want: []int{orphanPID},
		},
		"not by the session of a later process with the id of the root": {
			now: []procfs.Stat{
				{PID: rootPID, Parent: 1, Session: rootPID, StartTicks: 500},
				{PID: orphanPID, Parent: rootPID, Session: rootPID, StartTicks: 501},
			},
		},
		"by an earlier sweep": {
			now:  []procfs.Stat{{PID: orphanPID, Parent: 1, Session: orphanPID, StartTicks: 103}},
			seen: []procfs.Stat{{PID: orphanPID, StartTicks: 103}},
			want: []int{orphanPID},
		},
		"not by the id of a process of an earlier sweep": {
			now:  []procfs.Stat{{PID: orphanPID, Parent: 1, Session: orphanPID, StartTicks: 600}},
			seen: []procfs.Stat{{PID: orphanPID, StartTicks: 103}},
		},
	} {
		got := slices.Sorted(maps.Keys(root.treeOf(byPID(test.now), byPID(test.seen))))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func byPID(stats []procfs.Stat) map[int]procfs.Stat {
	result := make(map[int]procfs.Stat)
	for _, stat := range stats {
		result[stat.PID] = stat
	}
	return result
}
