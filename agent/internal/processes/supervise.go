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
	firstBackoff = 100 * time.Millisecond
	longBackoff  = 30 * time.Second
	// A run of this length begins the back-off anew.
	soundRun = 60 * time.Second
	// What a shell says of a program that it could not start; so a service's failed restart looks in its record.
	exitCodeNotStarted = 127
)

// order is what a supervisor is told to do with the present run.
type order struct {
	// reason is why the run is killed.
	reason sandpoolv1.CommandEndReason
	// again starts a service anew at once.
	again bool
}

// streams are the agent's sides of a run's files, and the process's own, which are closed once it has them.
type streams struct {
	outputs  [streamCount]*os.File
	input    *os.File
	terminal *os.File
	files    Files
	theirs   []int
}

func (p *Process) openStreams() (*streams, error) {
	if size := p.request.GetTerminal(); size != nil {
		own, theirs, err := openTerminal(size)
		if err != nil {
			return nil, err
		}
		return &streams{
			outputs: [streamCount]*os.File{own}, input: own, terminal: own, theirs: []int{theirs},
			files: Files{Stdin: theirs, Stdout: theirs, Stderr: theirs, Terminal: true},
		}, nil
	}
	s := &streams{files: Files{Stdin: p.registry.options.NullFile}}
	for stream := range s.outputs {
		own, theirs, err := outputPipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.outputs[stream] = own
		s.theirs = append(s.theirs, theirs)
	}
	s.files.Stdout, s.files.Stderr = s.theirs[stdout], s.theirs[stderr]
	if p.request.GetStdin() || s.files.Stdin < 0 {
		theirs, own, err := inputPipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.files.Stdin = theirs
		s.theirs = append(s.theirs, theirs)
		if p.request.GetStdin() {
			s.input = own
		} else {
			own.Close()
		}
	}
	return s, nil
}

type noLog struct{}

func (noLog) Write(data []byte) (int, error) { return len(data), nil }
func (noLog) Close() error                   { return nil }

func (s *streams) closeTheirs() {
	for _, fd := range s.theirs {
		unix.Close(fd)
	}
	s.theirs = nil
}

func (s *streams) close() {
	s.closeTheirs()
	for _, file := range s.outputs {
		if file != nil {
			file.Close()
		}
	}
	if s.input != nil && s.input != s.terminal {
		s.input.Close()
	}
}

// launch starts a run: the first, or one more of a service.
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
	s.closeTheirs()
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
			p.pumping++
		}
	}
	p.noteLocked()
	p.mu.Unlock()
	for stream, file := range s.outputs {
		if file != nil {
			go func() {
				log := p.log(stream)
				p.pump(stream, file, log, run.Done())
				log.Close()
				p.mu.Lock()
				p.pumping--
				p.changedLocked()
				p.mu.Unlock()
			}()
		}
	}
	return run, nil
}

// log takes the lines of a service, and nothing of what is none.
func (p *Process) log(stream int) io.WriteCloser {
	if p.service == nil {
		return noLog{}
	}
	return p.registry.options.Log(p.service.GetName(), streamNames[stream])
}

// supervise follows a process, or a service through all its runs, until it is over.
func (p *Process) supervise(run *process.Process) {
	backoff := firstBackoff
	for {
		kills := p.registry.options.OOMKills()
		stopChecking := p.checkHealth()
		o := p.follow(run)
		stopChecking()
		end := p.registry.options.End(run, kills, o.reason)
		p.closeInput()
		if o.reason == sandpoolv1.CommandEndReason_COMMAND_END_REASON_UNSPECIFIED && p.restartsAfter(end) {
			if time.Since(run.StartTime) >= soundRun {
				backoff = firstBackoff
			}
			p.rest(end)
			o = p.wait(backoff)
			backoff = min(2*backoff, longBackoff)
		}
		if !o.again {
			p.finish(end)
			return
		}
		var err error
		if run, err = p.again(end); err != nil {
			p.finish(&sandpoolv1.ProcessEnd{
				Exit:   &sandpoolv1.ProcessEnd_ExitCode{ExitCode: exitCodeNotStarted},
				Reason: sandpoolv1.CommandEndReason_COMMAND_END_REASON_EXITED,
			})
			return
		}
	}
}

// follow waits for the end of a run and brings it about when it is time, or somebody orders it. The order's reason is
// UNSPECIFIED for a run that ended by itself.
func (p *Process) follow(run *process.Process) order {
	var timedOut <-chan time.Time
	if limit := p.request.TimeoutSecs; limit != nil {
		timer := time.NewTimer(seconds(*limit))
		defer timer.Stop()
		timedOut = timer.C
	}
	idle := p.newIdleTimer()
	defer idle.stop()
	for {
		p.mu.Lock()
		attached, changed := len(p.watchers) > 0, p.changed
		p.mu.Unlock()
		idle.set(attached)
		var o order
		select {
		case <-run.Done():
			if p.registry.stopping() {
				o.reason = sandpoolv1.CommandEndReason_COMMAND_END_REASON_SHUT_DOWN
			}
			return o
		case <-timedOut:
			o.reason = sandpoolv1.CommandEndReason_COMMAND_END_REASON_TIMED_OUT
		case <-idle.passed():
			o.reason = sandpoolv1.CommandEndReason_COMMAND_END_REASON_IDLE_TIMED_OUT
		case o = <-p.orders:
		case <-changed:
			continue
		}
		p.registry.options.KillTree(run)
		return o
	}
}

// idleTimer passes when nobody has been attached for long enough.
type idleTimer struct {
	limit time.Duration
	timer *time.Timer
}

func (p *Process) newIdleTimer() *idleTimer {
	if p.request.IdleTimeoutSecs == nil {
		return &idleTimer{}
	}
	return &idleTimer{limit: seconds(p.request.GetIdleTimeoutSecs())}
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

// restartsAfter is whether the service's policy asks for another run.
func (p *Process) restartsAfter(end *sandpoolv1.ProcessEnd) bool {
	switch p.service.GetRestartPolicy() {
	case sandpoolv1.RestartPolicy_RESTART_POLICY_ALWAYS:
		return true
	case sandpoolv1.RestartPolicy_RESTART_POLICY_ON_FAILURE:
		_, exited := end.GetExit().(*sandpoolv1.ProcessEnd_ExitCode)
		return !exited || end.GetExitCode() != 0
	default:
		return false
	}
}

// rest notes that a service waits for its next run.
func (p *Process) rest(end *sandpoolv1.ProcessEnd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = sandpoolv1.ProcessState_PROCESS_STATE_BACKING_OFF
	p.end, p.endTime = end, time.Now()
	p.noteLocked()
}

// wait lets the back-off pass; an order cuts it short.
func (p *Process) wait(backoff time.Duration) order {
	timer := time.NewTimer(backoff)
	defer timer.Stop()
	select {
	case <-timer.C:
		return order{again: true}
	case o := <-p.orders:
		return o
	case <-p.registry.options.Stopping:
		return order{reason: sandpoolv1.CommandEndReason_COMMAND_END_REASON_SHUT_DOWN}
	}
}

// again starts the next run of a service, which goes on in the same output.
func (p *Process) again(end *sandpoolv1.ProcessEnd) (*process.Process, error) {
	p.mu.Lock()
	p.end = end
	p.mu.Unlock()
	return p.launch()
}

// finish ends a process for good; its record stays for a while.
func (p *Process) finish(end *sandpoolv1.ProcessEnd) {
	p.mu.Lock()
	p.state = sandpoolv1.ProcessState_PROCESS_STATE_ENDED
	p.end, p.endTime = end, time.Now()
	p.expireTime = p.endTime.Add(p.ttl)
	p.noteLocked()
	p.mu.Unlock()
	p.registry.ended(p)
}

// Kill ends the process and all that it started, and returns when it is gone.
func (p *Process) Kill(done <-chan struct{}) {
	p.order(order{reason: sandpoolv1.CommandEndReason_COMMAND_END_REASON_KILLED}, done, func() bool {
		return p.state == sandpoolv1.ProcessState_PROCESS_STATE_ENDED
	})
}

// order hands an order to the supervisor once, and returns when what it is to bring about, looked at with mu held, is
// so, or done is closed. One that comes too late for a run meets the next.
func (p *Process) order(o order, done <-chan struct{}, reached func() bool) {
	orders := p.orders
	for {
		p.mu.Lock()
		changed, over := p.changed, reached()
		p.mu.Unlock()
		if over {
			return
		}
		select {
		case orders <- o:
			orders = nil
		case <-changed:
		case <-done:
			return
		}
	}
}

// Signal sends a signal to the process, or to its whole tree.
func (p *Process) Signal(number int32, tree bool) error {
	p.mu.Lock()
	run, running := p.run, p.state == sandpoolv1.ProcessState_PROCESS_STATE_RUNNING
	p.mu.Unlock()
	ended := rpcerror.About(codes.FailedPrecondition, reasonProcessEnded, p.request.GetProcessId(), "the process has ended")
	if !running {
		return ended
	}
	if tree {
		return run.SignalTree(unix.Signal(number))
	}
	if err := run.Signal(unix.Signal(number)); err != nil {
		return ended
	}
	return nil
}

// Restart starts the next run of a service, and kills the present one first.
func (p *Process) Restart(done <-chan struct{}) error {
	if p.service == nil {
		return rpcerror.About(codes.FailedPrecondition, reasonNotAService, p.request.GetProcessId(),
			"the process is no service; start another one")
	}
	p.mu.Lock()
	before := p.restarts
	p.mu.Unlock()
	p.order(order{reason: sandpoolv1.CommandEndReason_COMMAND_END_REASON_KILLED, again: true}, done, func() bool {
		return p.restarts != before || p.state == sandpoolv1.ProcessState_PROCESS_STATE_ENDED
	})
	p.mu.Lock()
	restarted := p.restarts != before
	p.mu.Unlock()
	if restarted {
		return nil
	}
	return p.registry.revive(p)
}
