// Package processes runs processes that outlive the call that started them. It buffers their output, lets clients
// attach and reattach, and supervises services.
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
	defaultRetention   = 600 * time.Second
)

// Process is a process of ProcessService, or a service with all of its runs.
type Process struct {
	registry  *Registry
	request   *sandpoolv1.StartProcessRequest
	sequence  int64
	start     Start
	overflow  sandpoolv1.OutputOverflow
	service   *sandpoolv1.Service
	retention time.Duration
	// killRequests are the requests to the supervisor to kill the current run. At most one is pending.
	killRequests chan killRequest
	// inputMu serializes writers of input.
	inputMu sync.Mutex

	// mu guards the fields below. It is never held during an operation that can block.
	mu sync.Mutex
	// changed is closed and replaced whenever a field below changes.
	changed chan struct{}
	// version counts the changes of state and health in the record.
	version int64
	rings   [streamCount]ring
	clients map[*client]struct{}
	// delivered is the highest offset of each stream that was sent to any client.
	delivered [streamCount]int64
	// openOutputs is the number of streams of the current run that are still read.
	openOutputs int
	state       sandpoolv1.ProcessState
	run         *process.Process
	exit        *sandpoolv1.ProcessExit
	// input is the agent's side of the standard input; nil if there is none or it is closed.
	input      *os.File
	inputBytes int64
	// terminal and size are the agent's side of the terminal and its size; nil without a terminal.
	terminal      *os.File
	size          *sandpoolv1.TerminalSize
	restarts      int32
	health        sandpoolv1.ProcessHealth
	healthMessage string
	startTime     time.Time
	endTime       time.Time
	expireTime    time.Time
	deleted       bool
}

// Started is a process with the agent's sides of its streams.
type Started struct {
	Process *process.Process
	// User and Dir are the user and the working directory of the process.
	User string
	Dir  string
}

// Files are the descriptors for a process. Terminal is set if they are a terminal that becomes the controlling terminal
// of the process.
type Files struct {
	Stdin    int
	Stdout   int
	Stderr   int
	Terminal bool
}

// Start starts the program of a request with these files.
type Start func(Files) (*process.Process, error)

// notifyLocked wakes all goroutines that wait for a change.
func (p *Process) notifyLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// recordChangedLocked records a change of the record and notifies waiting goroutines.
func (p *Process) recordChangedLocked() {
	p.version++
	p.notifyLocked()
}

// Record returns the current record of the process.
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
		Stdout:          p.bufferLocked(stdout),
		Stderr:          p.bufferLocked(stderr),
		StartTime:       timestamppb.New(p.startTime),
		Exit:            p.exit,
		AttachedClients: int32(len(p.clients)),
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

func (p *Process) bufferLocked(stream int) *sandpoolv1.OutputBuffer {
	return &sandpoolv1.OutputBuffer{StartOffset: p.rings[stream].start, EndOffset: p.rings[stream].end}
}

func (p *Process) exited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == sandpoolv1.ProcessState_PROCESS_STATE_EXITED
}
