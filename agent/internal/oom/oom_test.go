package oom

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCandidates(t *testing.T) {
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
		got := candidates(test.mounts, test.groups)
		if len(got) == 0 || got[0] != test.want {
			t.Errorf("%s: %q, want %q first", name, got, test.want)
		}
	}
	if got := candidates("1 2 0:3 / / rw - ext4 /dev/sda rw\nshort\n", ""); len(got) != 0 {
		t.Errorf("candidates %q where no cgroup is mounted", got)
	}
	hybrid := candidates("41 31 0:38 / /u rw - cgroup2 cgroup2 rw\n35 31 0:32 / /m rw - cgroup cgroup rw,memory\n", "")
	if !slices.Contains(hybrid, "/u/memory.events") {
		t.Errorf("%q lacks the unified hierarchy", hybrid)
	}
}

func TestCounterFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory.events")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	counter := &Counter{file: file}
	if kills, ok := counter.Kills(); kills != 2 || !ok {
		t.Errorf("%d, %v; want 2", kills, ok)
	}
	write("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
	if kills, ok := counter.Kills(); kills != 5 || !ok {
		t.Errorf("%d, %v; want 5", kills, ok)
	}
	write("oom_kill_disable 0\n")
	if kills, ok := counter.Kills(); ok {
		t.Errorf("%d is known of a file without the count", kills)
	}
}

func TestUnknownCounter(t *testing.T) {
	if kills, ok := (&Counter{}).Kills(); kills != 0 || ok {
		t.Errorf("%d, %v; want it unknown", kills, ok)
	}
}
