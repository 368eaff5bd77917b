// Package processes runs processes that outlive the call that started them: it keeps what they print, lets clients
// attach and come back, and looks after services.
package processes

import (
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/process"
)

const (
	defaultBufferBytes = 1 << 20
	defaultTTL         = 600 * time.Second
)

// Process is one process of ProcessService, or a service with all its runs.
type Process struct {
	registry *Registry
	request  *sandpoolv1.StartProcessRequest
	sequence int64
	start    Start
	overflow sandpoolv1.OutputOverflow
	service  *sandpoolv1.Service
	ttl      time.Duration
	// orders are what the supervisor is told; it takes one at a time.
	orders chan order
	// inputMu lets one writer of input in at a time.
	inputMu sync.Mutex

	// mu guards what follows; it is never held over anything that may wait.
	mu sync.Mutex
	// changed is closed, and replaced, whenever something below changes.
	changed chan struct{}
	// version counts changes of what the record tells of state and health.
	version  int64
	rings    [streamCount]ring
	watchers map[*watcher]struct{}
	// delivered is up to where any client was ever sent each stream.
	delivered [streamCount]int64
	// pumping counts the streams of the present run that are still read.
	pumping int
	state   sandpoolv1.ProcessState
	run     *process.Process
	end     *sandpoolv1.ProcessEnd
	// input is where input goes; nil when there is none, or none any more.
	input      *os.File
	inputBytes int64
	// terminal is the terminal's own side, and its size; nil without one.
	terminal      *os.File
	size          *sandpoolv1.TerminalSize
	restarts      int32
	health        sandpoolv1.ProcessHealth
	healthMessage string
	startTime     time.Time
	endTime       time.Time
	expireTime    time.Time
	forgotten     bool
}

// Started is a process with the agent's sides of its streams.
type Started struct {
	Process *process.Process
	// User and Dir are what it runs as and in.
	User string
	Dir  string
}

// Files are the descriptors to give to a process, and whether they are a terminal that it is to lead.
type Files struct {
	Stdin    int
	Stdout   int
	Stderr   int
	Terminal bool
}

// Start starts the program of a request with these files.
type Start func(Files) (*process.Process, error)

// changedLocked wakes everybody who waits for a change.
func (p *Process) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// setLocked notes a change of what the record tells.
func (p *Process) noteLocked() {
	p.version++
	p.changedLocked()
}

// Record is the process as it is now.
func (p *Process) Record() *sandpoolv1.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recordLocked()
}

func (p *Process) recordLocked() *sandpoolv1.Process {
	record := &sandpoolv1.Process{
		ProcessId:       p.request.GetProcessId(),
		Name:            p.service.GetName(),
		State:           p.state,
		Command:         p.request.GetCommand(),
		Argv:            p.request.GetArgv(),
		WorkingDir:      p.request.GetWorkingDir(),
		User:            p.request.GetUser(),
		Terminal:        p.size,
		StdinOpen:       p.input != nil,
		StdinBytes:      p.inputBytes,
		Stdout:          p.keptLocked(stdout),
		Stderr:          p.keptLocked(stderr),
		StartTime:       timestamppb.New(p.startTime),
		End:             p.end,
		AttachedClients: int32(len(p.watchers)),
		Restarts:        p.restarts,
		RestartPolicy:   p.service.GetRestartPolicy(),
		Health:          p.health,
		HealthMessage:   p.healthMessage,
	}
	if p.state == sandpoolv1.ProcessState_PROCESS_STATE_RUNNING && p.run != nil {
		record.Pid = int32(p.run.PID)
	}
	if !p.endTime.IsZero() {
		record.EndTime = timestamppb.New(p.endTime)
	}
	if !p.expireTime.IsZero() {
		record.ExpireTime = timestamppb.New(p.expireTime)
	}
	return record
}

func (p *Process) keptLocked(stream int) *sandpoolv1.KeptOutput {
	return &sandpoolv1.KeptOutput{Begin: p.rings[stream].begin, End: p.rings[stream].end}
}

func (p *Process) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == sandpoolv1.ProcessState_PROCESS_STATE_ENDED
}
