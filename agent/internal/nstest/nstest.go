// Package nstest runs the tests of a package as the first process of a new pid namespace, as the agent runs.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Main is called by TestMain. It runs the tests in a new pid namespace with its own /proc and exits. This requires
// root. setUp is called in the namespace before the tests.
func Main(m *testing.M, setUp func()) {
	if os.Getpid() != 1 {
		os.Exit(runInNamespace())
	}
	if err := mountProc(); err != nil {
		fmt.Fprintln(os.Stderr, "mounting /proc for the tests failed:", err)
		os.Exit(1)
	}
	setUp()
	os.Exit(m.Run())
}

func runInNamespace() int {
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Args[0] = os.Args[0]
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := command.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	default:
		fmt.Fprintln(os.Stderr, "creating a pid namespace for the tests failed; run the tests as root:", err)
		return 1
	}
}

func mountProc() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}
