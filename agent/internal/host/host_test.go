package host_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/host"
)

func TestPrepareMarksInheritedFilesCloseOnExec(t *testing.T) {
	// unix.Dup creates a descriptor without the close-on-exec flag, like an inherited one.
	fd, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	host.Prepare()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v; want close-on-exec", flags, err)
	}
}

func TestPrepareReservesThreads(t *testing.T) {
	host.Prepare()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil || len(tasks) < 8 {
		t.Errorf("%d threads, %v; want 8 or more", len(tasks), err)
	}
}

func TestHideMakesProcessNotDumpable(t *testing.T) {
	host.Hide()
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("dumpable %d, %v; want 0", dumpable, err)
	}
}

func TestPrepareCatchesIrrelevantSignals(t *testing.T) {
	host.Prepare()
	for _, signal := range []unix.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM} {
		if err := unix.Kill(os.Getpid(), signal); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "SigIgn:\t")
	mask, _, _ := strings.Cut(rest, "\n")
	ignored, err := strconv.ParseUint(mask, 16, 64)
	// Signals 32 and 33 belong to the C library. The parent of the tests, for example GNU make, can leave them ignored.
	const reserved = 1<<31 | 1<<32
	if err != nil || ignored&^reserved != 0 {
		t.Errorf("processes would inherit ignored signals: %v\n%s", err, data)
	}
}
