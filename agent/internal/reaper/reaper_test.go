package reaper_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"sandpool/agent/internal/nstest"
	"sandpool/agent/internal/procfs"
	"sandpool/agent/internal/reaper"
)

var children *reaper.Reaper

func TestMain(m *testing.M) {
	nstest.Main(m, func() { children = reaper.New() })
}

func start(t *testing.T, script string) *reaper.Child {
	t.Helper()
	child, err := children.Start(func() (int, error) {
		return syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
			Files: []uintptr{0, 1, 2},
			// As for all commands, neither the session nor the process group is that of the reaper.
			Sys: &syscall.SysProcAttr{Setsid: true},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return child
}

func waitIdle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := children.WaitIdle(ctx); err != nil {
		t.Fatal("children are left:", err)
	}
}

func TestReportsEveryExitStatus(t *testing.T) {
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			code := i % 10
			child := start(t, fmt.Sprintf("exit %d", code))
			<-child.Done()
			if got := child.Status().ExitStatus(); got != code {
				t.Errorf("exit status %d, want %d", got, code)
			}
		})
	}
	all.Wait()
	waitIdle(t)
}

func TestReportsSignal(t *testing.T) {
	child := start(t, "kill -KILL $$")
	<-child.Done()
	if status := child.Status(); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("status %#x, want SIGKILL", status)
	}
}

func TestReapsOrphans(t *testing.T) {
	// Each subshell leaves a grandchild that outlives it and becomes a child of this process.
	child := start(t, "for i in 1 2 3 4 5; do (sleep 0.1 & sleep 0.1 &); done")
	<-child.Done()
	waitIdle(t)
	pids, err := procfs.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if pid != os.Getpid() {
			stat, err := procfs.ReadStat(pid)
			t.Errorf("process %d is left: %+v, %v", pid, stat, err)
		}
	}
}

func TestWaitIdleReturnsWhenItsContextEnds(t *testing.T) {
	child := start(t, "exec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := children.WaitIdle(ctx); err == nil {
		t.Error("WaitIdle returned no error while a child runs")
	}
	if err := syscall.Kill(child.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-child.Done()
	waitIdle(t)
}

func TestFailedStartLeavesNoChild(t *testing.T) {
	_, err := children.Start(func() (int, error) {
		return syscall.ForkExec("/does/not/exist", []string{"x"}, &syscall.ProcAttr{})
	})
	if err != syscall.ENOENT {
		t.Errorf("error %v, want ENOENT", err)
	}
	waitIdle(t)
}
