package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/host"
	"sandpool/agent/internal/nstest"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/procfs"
	"sandpool/agent/internal/reaper"
	"sandpool/agent/internal/users"
)

var (
	children *reaper.Reaper
	launcher *process.Launcher
)

func TestMain(m *testing.M) {
	nstest.Main(m, func() {
		host.Prepare()
		children = reaper.New()
		launcher = process.NewLauncher(children)
	})
}

var (
	root         = users.Identity{Name: "root", Home: "/"}
	unprivileged = users.Identity{UID: 65534, GID: 65533, Groups: []uint32{5, 7}, Name: "nobody", Home: "/"}
)

func start(t *testing.T, identity users.Identity, script string) *process.Process {
	t.Helper()
	return startProgram(t, identity, "/bin/sh", "-c", script)
}

// startProgram starts a program without a shell.
func startProgram(t *testing.T, identity users.Identity, path string, arguments ...string) *process.Process {
	t.Helper()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	started, err := launcher.Start(process.Spec{
		Path: path, Argv: append([]string{path}, arguments...), Env: []string{"PATH=/usr/bin:/bin", "A=b"},
		Dir: "/", Identity: identity, Stdin: fd, Stdout: fd, Stderr: fd,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, started) })
	return started
}

func kill(t *testing.T, started *process.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := started.KillTree(ctx); err != nil {
		t.Error("the tree was not killed:", err)
	}
	select {
	case <-started.Done():
	case <-ctx.Done():
		t.Error("the root was not reaped")
	}
}

// reports is a named pipe through which processes report their ids.
type reports struct {
	path  string
	lines *bufio.Scanner
}

func newReports(t *testing.T) *reports {
	t.Helper()
	// t.TempDir() is not used because other users cannot enter it.
	dir, err := os.MkdirTemp("/tmp", "agent-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	// Open both ends, so that opening does not block and reading does not return end of file.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &reports{path: path, lines: bufio.NewScanner(file)}
}

func (r *reports) next(t *testing.T) int {
	t.Helper()
	if !r.lines.Scan() {
		t.Fatal("no process reported its id:", r.lines.Err())
	}
	pid, err := strconv.Atoi(r.lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func alive(pid int) bool {
	stat, err := procfs.ReadStat(pid)
	return err == nil && !stat.Dead
}

// status reads the fields of /proc/<pid>/status.
func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

func readProc(t *testing.T, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestProcessStartsWithCleanState(t *testing.T) {
	// The process reports its id, because the kernel may not have set up its environment right after the start.
	pipe := newReports(t)
	started := start(t, unprivileged, "echo $$ >"+pipe.path+"; kill -STOP $$")
	pid := pipe.next(t)
	if pid != started.PID {
		t.Errorf("pid %d, want %d", pid, started.PID)
	}
	fields := status(t, pid)
	for name, want := range map[string]string{
		"Uid": "65534 65534 65534 65534", "Gid": "65533 65533 65533 65533", "Groups": "5 7",
		"SigBlk": "0000000000000000",
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if got := fields[name]; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// Signals 32 and 33 belong to the C library. The parent of the tests, for example GNU make, can leave them ignored.
	const reserved = 1<<31 | 1<<32
	if ignored, err := strconv.ParseUint(fields["SigIgn"], 16, 64); err != nil || ignored&^reserved != 0 {
		t.Errorf("SigIgn: %q, want none", fields["SigIgn"])
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, file.Name()))
		// The shell closes some descriptors after the directory was read.
		if !errors.Is(err, os.ErrNotExist) && target != "/dev/null" && target != pipe.path {
			t.Errorf("file %s is open: %s", file.Name(), target)
		}
	}
	stat, err := procfs.ReadStat(pid)
	if err != nil || stat.Session != pid || stat.Group != pid {
		t.Errorf("%+v, %v; want a new session and a new group", stat, err)
	}
	environment := strings.Split(strings.TrimRight(readProc(t, pid, "environ"), "\x00"), "\x00")
	slices.Sort(environment)
	if len(environment) != 3 || !slices.Equal(environment[:2], []string{"A=b", "PATH=/usr/bin:/bin"}) ||
		!strings.HasPrefix(environment[2], process.MarkerVariable+"=") {
		t.Errorf("environment %q", environment)
	}
}

func TestProcessHasHigherOOMScoreThanTheAgent(t *testing.T) {
	before := readProc(t, os.Getpid(), "oom_score_adj")
	started := startProgram(t, root, "/bin/sleep", "1000")
	own, other := readProc(t, os.Getpid(), "oom_score_adj"), readProc(t, started.PID, "oom_score_adj")
	if own != before {
		t.Errorf("own score changed from %q to %q", before, own)
	}
	ownScore, _ := strconv.Atoi(strings.TrimSpace(own))
	score, err := strconv.Atoi(strings.TrimSpace(other))
	if err != nil || score <= ownScore {
		t.Errorf("score %d of the process, %d of the agent; want the score of the process to be higher", score, ownScore)
	}
	if limit, ok := procfs.LocksLimit(os.Getpid()); ok {
		t.Errorf("the marker %d remained set on the agent", limit)
	}
}

func TestKillTreeKillsHiddenDescendants(t *testing.T) {
	for name, script := range map[string]string{
		"child":                   `sh -c 'echo $$ >PIPE; exec sleep 1000' & wait`,
		"orphan":                  `(sh -c 'echo $$ >PIPE; exec sleep 1000' &); exec sleep 1000`,
		"orphan in a new session": `setsid --fork sh -c 'echo $$ >PIPE; exec sleep 1000'; exec sleep 1000`,
		"without environment":     `env -i /usr/bin/setsid --fork /bin/sh -c 'echo $$ >PIPE; exec sleep 1000'; exec sleep 1000`,
		"after its root":          `env -i /usr/bin/setsid --fork /bin/sh -c 'echo $$ >PIPE; exec sleep 1000'`,
		"without limit":           `setsid --fork bash -c 'ulimit -x unlimited; echo $$ >PIPE; sleep 1000; :'`,
		"ignores signals":         `trap "" TERM INT HUP; echo $$ >PIPE; sleep 1000; sleep 1000`,
		"stopped":                 `setsid --fork sh -c 'echo $$ >PIPE; kill -STOP $$'; exec sleep 1000`,
	} {
		for _, identity := range []users.Identity{root, unprivileged} {
			t.Run(name+" as "+identity.Name, func(t *testing.T) {
				pipe := newReports(t)
				bystander := startProgram(t, root, "/bin/sleep", "1000")
				started := start(t, identity, strings.ReplaceAll(script, "PIPE", pipe.path))
				pid := pipe.next(t)
				if !alive(pid) {
					t.Fatal("the process ended before it was killed")
				}
				kill(t, started)
				if alive(pid) {
					t.Error("the process survived")
				}
				if !alive(bystander.PID) {
					t.Error("another command was killed too")
				}
			})
		}
	}
}

func TestKillTreeKillsForkBomb(t *testing.T) {
	pipe := newReports(t)
	// The number of processes is limited, but the chain is endless: each process starts the next one and exits.
	started := start(t, root, `f() { sleep 0.02; (f &) ; }; for i in 1 2 3 4 5 6 7 8 9 10; do (f &); done; echo $$ >`+pipe.path+`; f`)
	pipe.next(t)
	kill(t, started)
	waitNoProcess(t)
}

func TestKillTreeKillsChainOfSessions(t *testing.T) {
	pipe := newReports(t)
	script := filepath.Join(filepath.Dir(pipe.path), "relay")
	// Each process of the chain is in a new session without environment, starts the next one and exits.
	text := "if [ $2 = 50 ]; then echo $$ >" + pipe.path + "; fi\nenv -i setsid --fork sh $1 $1 $(($2 + 1))\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	started := start(t, root, "setsid --fork sh "+script+" "+script+" 0")
	pipe.next(t)
	kill(t, started)
	waitNoProcess(t)
}

func waitNoProcess(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := children.WaitIdle(ctx); err != nil {
		t.Error("a process is left:", err)
	}
}

func TestStartReturnsTheErrorOfTheKernel(t *testing.T) {
	for _, test := range []struct {
		path, dir string
		want      error
	}{
		{"/does/not/exist", "/", unix.ENOENT},
		{"/etc/passwd", "/", unix.EACCES},
		{"/bin/sh", "/does/not/exist", unix.ENOENT},
	} {
		_, err := launcher.Start(process.Spec{Path: test.path, Argv: []string{"x"}, Dir: test.dir, Identity: root})
		if err != test.want {
			t.Errorf("%s in %s: %v, want %v", test.path, test.dir, err, test.want)
		}
	}
}
