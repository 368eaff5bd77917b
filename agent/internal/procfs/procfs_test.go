package procfs

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

func TestParseStatReadsFieldsAfterTheName(t *testing.T) {
	line := "42 (evil) S) 1 2 (3\n) R 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3\n"
	want := Stat{PID: 42, Parent: 7, Group: 8, Session: 9, StartTicks: 98765}
	if got, err := parseStat(42, []byte(line)); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	zombie := "42 (x) Z 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765\n"
	if got, err := parseStat(42, []byte(zombie)); err != nil || !got.Dead {
		t.Errorf("%+v, %v; want it dead", got, err)
	}
	for _, bad := range []string{"", "42 (x", "42 (x) R 1 2 3", "42 (x) R a 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765"} {
		if got, err := parseStat(42, []byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestParseLocksLimitReadsSoftLimit(t *testing.T) {
	head := "Limit                     Soft Limit           Hard Limit           Units     \n"
	if limit, ok := parseLocksLimit([]byte(head + "Max file locks            1099511627777        unlimited            locks     \n")); !ok || limit != 1099511627777 {
		t.Errorf("%d, %v", limit, ok)
	}
	for _, text := range []string{"", head, "Max file locks", "Max file locks            unlimited            unlimited            locks\n"} {
		if limit, ok := parseLocksLimit([]byte(text)); ok {
			t.Errorf("%q: %d", text, limit)
		}
	}
}

func TestLastPIDChangesWithEachProcess(t *testing.T) {
	before, ok := LastPID()
	if !ok {
		t.Fatal("the last pid cannot be read")
	}
	if err := exec.Command("true").Run(); err != nil {
		t.Fatal(err)
	}
	if after, ok := LastPID(); !ok || after == before {
		t.Errorf("got %d before and %d after a process was created", before, after)
	}
}

func TestReadsOwnProcess(t *testing.T) {
	pid := os.Getpid()
	stat, err := ReadStat(pid)
	if err != nil || stat.PID != pid || stat.Parent != os.Getppid() || stat.StartTicks == 0 || stat.Dead {
		t.Errorf("%+v, %v", stat, err)
	}
	if pids, err := PIDs(); err != nil || !slices.Contains(pids, pid) {
		t.Errorf("%v, %v; want them to contain %d", pids, err, pid)
	}
	entry := os.Environ()[0]
	if !HasEnvironment(pid, entry) || HasEnvironment(pid, entry+"x") {
		t.Errorf("HasEnvironment returned the wrong result for %q", entry)
	}
	if _, err := ReadStat(1 << 30); err == nil {
		t.Error("got a state for a process id that does not exist")
	}
}
