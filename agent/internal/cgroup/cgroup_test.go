package cgroup

import (
	"slices"
	"testing"
)

var killsFile = File{Controller: "memory", Legacy: "memory.oom_control", Unified: "memory.events"}

func TestCandidatesReturnsTheMostLikelyPathFirst(t *testing.T) {
	for name, test := range map[string]struct {
		mounts, groups string
		want           string
	}{
		"container on v1": {
			mounts: "900 899 0:35 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n",
			groups: "7:memory:/docker/abc\n0::/docker/abc\n",
			want:   "/sys/fs/cgroup/memory/memory.oom_control",
		},
		"container on v1 with a cgroup namespace": {
			mounts: "900 899 0:35 / /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n",
			groups: "7:memory:/\n",
			want:   "/sys/fs/cgroup/memory/memory.oom_control",
		},
		"container on v2": {
			mounts: "900 899 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
			groups: "0::/\n",
			want:   "/sys/fs/cgroup/memory.events",
		},
		"host on hybrid": {
			mounts: "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
				"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			groups: "4:memory:/user/x\n0::/user/y\n",
			want:   "/sys/fs/cgroup/memory/user/x/memory.oom_control",
		},
		"mounted part elsewhere": {
			mounts: "35 31 0:32 /docker/abc /mnt/memory rw - cgroup cgroup rw,cpu,memory\n",
			groups: "4:cpu,memory:/other\n",
			want:   "/mnt/memory/memory.oom_control",
		},
	} {
		got := killsFile.candidates(test.mounts, test.groups)
		if len(got) == 0 || got[0].Path != test.want {
			t.Errorf("%s: %v, want %q first", name, got, test.want)
		}
	}
	if got := killsFile.candidates("1 2 0:3 / / rw - ext4 /dev/sda rw\nshort\n", ""); len(got) != 0 {
		t.Errorf("got candidates %v although no cgroup is mounted", got)
	}
	hybrid := killsFile.candidates("41 31 0:38 / /u rw - cgroup2 cgroup2 rw\n35 31 0:32 / /m rw - cgroup cgroup rw,memory\n", "")
	if !slices.Contains(hybrid, Place{Path: "/u/memory.events"}) {
		t.Errorf("%v does not contain the unified hierarchy", hybrid)
	}
}
