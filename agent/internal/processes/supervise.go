package processes

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/rpcerror"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
	// Duration of a run after which the next backoff is minBackoff again.
	backoffResetAfter = 60 * time.Second
	// Exit code with which a shell reports a program that cannot be started. The record of a service uses it when a
	// restart fails.
	exitCodeNotStarted = 127
)

// killRequest is a request to the supervisor to kill the current run.
type killRequest struct {
	// reason is the exit reason of the killed run.
	reason sandpoolv1.ExitReason
	// restart starts the next run of a service immediately.
	restart bool
}

// streams are the agent's sides of the files of a run, and the descriptors for the process, which the agent closes
// after the start.
type streams struct {
	outputs  [streamCount]*os.File
	input    *os.File
	terminal *os.File
	files    Files
	childEnd []int
}

func (p *Process) openStreams() (*streams, error) {
	if size := p.request.GetTerminal(); size != nil {
		agentEnd, childEnd, err := openTerminal(size)
		if err != nil {
			return nil, err
		}
		return &streams{
			outputs: [streamCount]*os.File{agentEnd}, input: agentEnd, terminal: agentEnd, childEnd: []int{childEnd},
			files: Files{Stdin: childEnd, Stdout: childEnd, Stderr: childEnd, Terminal: true},
		}, nil
	}
	s := &streams{files: Files{Stdin: p.registry.options.NullFile}}
	for stream := range s.outputs {
		agentEnd, childEnd, err := outputPipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.outputs[stream] = agentEnd
		s.childEnd = append(s.childEnd, childEnd)
	}
	s.files.Stdout, s.files.Stderr = s.childEnd[stdout], s.childEnd[stderr]
	if p.request.GetStdin() || s.files.Stdin < 0 {
		childEnd, agentEnd, err := inputPipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.files.Stdin = childEnd
		s.childEnd = append(s.childEnd, childEnd)
		if p.request.GetStdin() {
			s.input = agentEnd
		} else {
			agentEnd.Close()
		}
	}
	return s, nil
}

type discardLog struct{}

func (discardLog) Write(data []byte) (int, error) { return len(data), nil }
func (discardLog) Close() error                   { return nil }

func (s *streams) closeChildEnds() {
	for _, fd := range s.childEnd {
		unix.Close(fd)
	}
	s.childEnd = nil
}

func (s *streams) close() {
	s.closeChildEnds()
	for _, file := range s.outputs {
		if file != nil {
			file.Close()
		}
	}
	if s.input != nil && s.input != s.terminal {
		s.input.Close()
	}
}

// launch starts a run: the first run, or the next run of a service.
func (p *Process) launch() (*process.Process, error) {
	s, err := p.openStreams()
	if err != nil {
		return nil, p.registry.options.StreamError(err)
	}
	run, err := p.start(s.files)
	if err != nil {
		s.close()
		return nil, err
	}
	s.closeChildEnds()
	p.mu.Lock()
	if p.run != nil {
		p.restarts++
	}
	p.run, p.startTime = run, run.StartTime
	p.input, p.inputBytes = s.input, 0
	p.terminal = s.terminal
	if s.terminal != nil {
		p.size = p.request.GetTerminal()
	}
	p.state = sandpoolv1.ProcessState_PROCESS_STATE_RUNNING
	p.endTime = time.Time{}
	if p.service.GetHealthCheck() != nil {
		p.health, p.healthMessage = sandpoolv1.ProcessHealth_PROCESS_HEALTH_STARTING, ""
	}
	for _, file := range s.outputs {
		if file != nil {
			p.openOutputs++
		}
	}
	p.recordChangedLocked()
	p.mu.Unlock()
	for stream, file := range s.outputs {
		if file != nil {
			go func() {
				log := p.log(stream)
				p.pump(stream, file, log, run.Done())
				log.Close()
				p.mu.Lock()
				p.openOutputs--
				p.notifyLocked()
				p.mu.Unlock()
			}()
		}
	}
	return run, nil
}

// log returns the writer for log lines of a service. The output of other processes is not logged.
func (p *Process) log(stream int) io.WriteCloser {
	if p.service == nil {
		return discardLog{}
	}
	return p.registry.options.Log(p.service.GetName(), streamTypes[stream])
}

// supervise follows a process, or all runs of a service, until it has exited.
func (p *Process) supervise(run *process.Process) {
	backoff := minBackoff
	for {
		kills := p.registry.options.OOMKills()
		stopChecking := p.checkHealth()
		kill := p.follow(run)
		stopChecking()
		exit := p.registry.options.Exit(run, kills, kill.reason)
		p.closeInput()
		if kill.reason == sandpoolv1.ExitReason_EXIT_REASON_UNSPECIFIED && p.restartsAfter(exit) {
			if time.Since(run.StartTime) >= backoffResetAfter {
				backoff = minBackoff
			}
			p.startBackoff(exit)
			kill = p.waitBackoff(backoff)
			backoff = min(2*backoff, maxBackoff)
		}
		if !kill.restart {
			p.finish(exit)
			return
		}
		var err error
		if run, err = p.restart(exit); err != nil {
			p.finish(&sandpoolv1.ProcessExit{
				Status: &sandpoolv1.ProcessExit_ExitCode{ExitCode: exitCodeNotStarted},
				Reason: sandpoolv1.ExitReason_EXIT_REASON_EXITED,
			})
			return
		}
	}
}

// follow waits until a run has exited, and kills it when a timeout expires or a kill request arrives. The reason of the
// returned request is UNSPECIFIED if the run exited by itself.
func (p *Process) follow(run *process.Process) killRequest {
	var timedOut <-chan time.Time
	if limit := p.request.GetTimeout(); limit != nil {
		timer := time.NewTimer(limit.AsDuration())
		defer timer.Stop()
		timedOut = timer.C
	}
	idle := p.newIdleTimer()
	defer idle.stop()
	for {
		p.mu.Lock()
		attached, changed := len(p.clients) > 0, p.changed
		p.mu.Unlock()
		idle.set(attached)
		var kill killRequest
		select {
		case <-run.Done():
			if p.registry.stopping() {
				kill.reason = sandpoolv1.ExitReason_EXIT_REASON_SHUT_DOWN
			}
			return kill
		case <-timedOut:
			kill.reason = sandpoolv1.ExitReason_EXIT_REASON_TIMED_OUT
		case <-idle.passed():
			kill.reason = sandpoolv1.ExitReason_EXIT_REASON_IDLE_TIMED_OUT
		case kill = <-p.killRequests:
		case <-changed:
			continue
		}
		p.registry.options.KillTree(run)
		return kill
	}
}

// idleTimer expires when no client was attached for the idle timeout.
type idleTimer struct {
	limit time.Duration
	timer *time.Timer
}

func (p *Process) newIdleTimer() *idleTimer {
	if p.request.GetIdleTimeout() == nil {
		return &idleTimer{}
	}
	return &idleTimer{limit: p.request.GetIdleTimeout().AsDuration()}
}

func (t *idleTimer) set(attached bool) {
	switch {
	case t.limit == 0:
	case attached:
		t.stop()
		t.timer = nil
	case t.timer == nil:
		t.timer = time.NewTimer(t.limit)
	}
}

func (t *idleTimer) passed() <-chan time.Time {
	if t.timer == nil {
		return nil
	}
	return t.timer.C
}

func (t *idleTimer) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

// restartsAfter reports whether the restart policy of the service requires another run.
func (p *Process) restartsAfter(exit *sandpoolv1.ProcessExit) bool {
	switch p.service.GetRestartPolicy() {
	case sandpoolv1.RestartPolicy_RESTART_POLICY_ALWAYS:
		return true
	case sandpoolv1.RestartPolicy_RESTART_POLICY_ON_FAILURE:
		_, exited := exit.GetStatus().(*sandpoolv1.ProcessExit_ExitCode)
		return !exited || exit.GetExitCode() != 0
	default:
		return false
	}
}

// startBackoff records that a service waits for its next run.
func (p *Process) startBackoff(exit *sandpoolv1.ProcessExit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = sandpoolv1.ProcessState_PROCESS_STATE_BACKING_OFF
	p.exit, p.endTime = exit, time.Now()
	p.recordChangedLocked()
}

// waitBackoff waits for the backoff. A kill request ends it early.
func (p *Process) waitBackoff(backoff time.Duration) killRequest {
	timer := time.NewTimer(backoff)
	defer timer.Stop()
	select {
	case <-timer.C:
		return killRequest{restart: true}
	case kill := <-p.killRequests:
		return kill
	case <-p.registry.options.Stopping:
		return killRequest{reason: sandpoolv1.ExitReason_EXIT_REASON_SHUT_DOWN}
	}
}

// restart starts the next run of a service. The output of the service continues.
func (p *Process) restart(exit *sandpoolv1.ProcessExit) (*process.Process, error) {
	p.mu.Lock()
	p.exit = exit
	p.mu.Unlock()
	return p.launch()
}

// finish records that a process has exited. The record is retained for the retention time.
func (p *Process) finish(exit *sandpoolv1.ProcessExit) {
	p.mu.Lock()
	p.state = sandpoolv1.ProcessState_PROCESS_STATE_EXITED
	p.exit, p.endTime = exit, time.Now()
	p.expireTime = p.endTime.Add(p.retention)
	p.recordChangedLocked()
	p.mu.Unlock()
	p.registry.deleteAfterRetention(p)
}

// Kill kills the process and all of its descendants, and returns when the process has exited or done is closed.
func (p *Process) Kill(done <-chan struct{}) {
	p.requestKill(killRequest{reason: sandpoolv1.ExitReason_EXIT_REASON_KILLED}, done, func() bool {
		return p.state == sandpoolv1.ProcessState_PROCESS_STATE_EXITED
	})
}

// requestKill sends a request to the supervisor once, and returns when reached, which is called with mu held, returns
// true, or done is closed. A request that arrives after a run has exited applies to the next run.
func (p *Process) requestKill(kill killRequest, done <-chan struct{}, reached func() bool) {
	killRequests := p.killRequests
	for {
		p.mu.Lock()
		changed, over := p.changed, reached()
		p.mu.Unlock()
		if over {
			return
		}
		select {
		case killRequests <- kill:
			killRequests = nil
		case <-changed:
		case <-done:
			return
		}
	}
}

// Signal sends a signal to the process, or to the process and all of its descendants.
func (p *Process) Signal(number int32, tree bool) error {
	p.mu.Lock()
	run, running := p.run, p.state == sandpoolv1.ProcessState_PROCESS_STATE_RUNNING
	p.mu.Unlock()
	exited := rpcerror.About(codes.FailedPrecondition, reasonProcessExited, p.request.GetProcessId(),
		"process %q has exited; it cannot receive signals", p.request.GetProcessId())
	if !running {
		return exited
	}
	if tree {
		return run.SignalTree(unix.Signal(number))
	}
	if err := run.Signal(unix.Signal(number)); err != nil {
		return exited
	}
	return nil
}

// Restart kills the current run of a service, if there is one, and starts the next run.
func (p *Process) Restart(done <-chan struct{}) error {
	if p.service == nil {
		return rpcerror.About(codes.FailedPrecondition, reasonNotAService, p.request.GetProcessId(),
			"process %q is not a service and cannot be restarted; start another process", p.request.GetProcessId())
	}
	p.mu.Lock()
	before := p.restarts
	p.mu.Unlock()
	p.requestKill(killRequest{reason: sandpoolv1.ExitReason_EXIT_REASON_KILLED, restart: true}, done, func() bool {
		return p.restarts != before || p.state == sandpoolv1.ProcessState_PROCESS_STATE_EXITED
	})
	p.mu.Lock()
	restarted := p.restarts != before
	p.mu.Unlock()
	if restarted {
		return nil
	}
	return p.registry.restartExited(p)
}
