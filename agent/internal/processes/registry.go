package processes

import (
	"crypto/sha256"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/process"
	"sandpool/agent/internal/rpcerror"
)

const (
	maxRunning = 256
	maxRecords = 1024
	// maxKept is how much output is kept in all, of running and of ended processes.
	maxKept         = 64 << 20
	defaultPageSize = 100
)

// Reasons that are stable parts of the contract.
const (
	reasonNotFound     = "PROCESS_NOT_FOUND"
	reasonExists       = "PROCESS_ALREADY_EXISTS"
	reasonProcessEnded = "PROCESS_ENDED"
	reasonStdinClosed  = "STDIN_CLOSED"
	reasonNoTerminal   = "NO_TERMINAL"
	reasonNotAService  = "NOT_A_SERVICE"
	reasonNameTaken    = "SERVICE_NAME_TAKEN"
	reasonOffset       = "OFFSET_OUT_OF_RANGE"
	reasonCommandLimit = "COMMAND_LIMIT"
	reasonInvalidField = "INVALID_FIELD"
)

// Options are what the registry needs of the agent.
type Options struct {
	// NullFile is a descriptor of /dev/null, -1 where there is none.
	NullFile int
	// OOMKills is the kernel's count of out-of-memory kills.
	OOMKills func() int64
	// End says how a run ended; forced is the agent's own reason, UNSPECIFIED if it had none.
	End func(run *process.Process, oomKillsBefore int64, forced sandpoolv1.CommandEndReason) *sandpoolv1.ProcessEnd
	// KillTree kills a run with all its descendants, and returns when they are gone.
	KillTree func(run *process.Process)
	// StreamError is the error for a pipe or terminal that cannot be made.
	StreamError func(error) error
	// Stopping is closed when the agent ends all processes.
	Stopping <-chan struct{}
	// Log takes what services print. What it returns never waits.
	Log func(source string, stream sandpoolv1.OutputStream) io.WriteCloser
}

// Registry is all processes of the sandbox.
type Registry struct {
	options Options
	kept    atomic.Int64

	mu        sync.Mutex
	processes map[string]*Process
	sequence  int64
}

// NewRegistry makes an empty one.
func NewRegistry(options Options) *Registry {
	return &Registry{options: options, processes: make(map[string]*Process)}
}

// Start starts the process of a request, unless there is one of its id: then that one is the answer, if it was asked for
// alike.
func (r *Registry) Start(request *sandpoolv1.StartProcessRequest, start Start) (*Process, error) {
	if request.GetProcessId() == "" {
		return nil, rpcerror.BadField(reasonInvalidField, "process_id", "is missing")
	}
	request = proto.CloneOf(request)
	request.SandboxId = ""
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.processes[request.GetProcessId()]; known != nil {
		if digest(known.request) != digest(request) {
			return nil, rpcerror.About(codes.AlreadyExists, reasonExists, request.GetProcessId(),
				"the process id stands for a process that was started differently")
		}
		return known, nil
	}
	if err := r.checkLimitsLocked(request); err != nil {
		return nil, err
	}
	r.makeRoomLocked()
	r.sequence++
	p := newProcess(r, request, start, r.sequence)
	// Under the lock, so that a retry finds the process and never starts a second one.
	run, err := p.launch()
	if err != nil {
		return nil, err
	}
	r.processes[request.GetProcessId()] = p
	go p.supervise(run)
	return p, nil
}

func newProcess(r *Registry, request *sandpoolv1.StartProcessRequest, start Start, sequence int64) *Process {
	p := &Process{
		registry: r,
		request:  request,
		sequence: sequence,
		start:    start,
		overflow: request.GetOutputOverflow(),
		service:  request.GetService(),
		ttl:      defaultTTL,
		orders:   make(chan order, 1),
		changed:  make(chan struct{}),
		watchers: make(map[*watcher]struct{}),
	}
	limit := defaultBufferBytes
	if request.OutputBufferBytes != nil {
		limit = int(request.GetOutputBufferBytes())
	}
	for stream := range p.rings {
		p.rings[stream].limit = limit
	}
	if request.TtlSecs != nil {
		p.ttl = seconds(request.GetTtlSecs())
	}
	return p
}

func (r *Registry) checkLimitsLocked(request *sandpoolv1.StartProcessRequest) error {
	running := 0
	for _, other := range r.processes {
		if other.ended() {
			continue
		}
		running++
		if name := request.GetService().GetName(); name != "" && name == other.service.GetName() {
			return rpcerror.About(codes.FailedPrecondition, reasonNameTaken, name,
				"a service %q runs already, as process %s: end that one first, or choose another name",
				name, other.request.GetProcessId())
		}
	}
	if running >= maxRunning {
		return rpcerror.New(codes.ResourceExhausted, reasonCommandLimit, "%d processes run in this sandbox already", maxRunning)
	}
	return nil
}

// makeRoomLocked lets the oldest record of an ended process go when there are too many; more end than run.
func (r *Registry) makeRoomLocked() {
	if len(r.processes) < maxRecords {
		return
	}
	var oldest *Process
	for _, p := range r.processes {
		if (oldest == nil || p.sequence < oldest.sequence) && p.ended() {
			oldest = p
		}
	}
	if oldest != nil {
		oldest.mu.Lock()
		r.forgetLocked(oldest)
		oldest.mu.Unlock()
	}
}

// forgetLocked lets go of a process that has ended.
func (r *Registry) forgetLocked(p *Process) {
	p.forgotten = true
	r.dropLocked(p)
	delete(r.processes, p.request.GetProcessId())
	p.changedLocked()
}

// digest is equal for equal requests.
func digest(request *sandpoolv1.StartProcessRequest) [sha256.Size]byte {
	// A request that was decoded can be encoded.
	data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	return sha256.Sum256(data)
}

// Get finds a process by its id, or a service by its name: the one that runs, else the last.
func (r *Registry) Get(ref string) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.processes[ref]; p != nil {
		return p, nil
	}
	var found *Process
	for _, p := range r.processes {
		if p.service.GetName() == ref && ref != "" && (found == nil || p.sequence > found.sequence) {
			found = p
		}
	}
	if found == nil {
		return nil, rpcerror.About(codes.NotFound, reasonNotFound, ref, "there is no process %q", ref)
	}
	return found, nil
}

// List is a page of the processes in these states (all if none is named), oldest first, and the token of the next page.
func (r *Registry) List(
	states []sandpoolv1.ProcessState, pageSize int, token string,
) (page []*sandpoolv1.Process, next string, err error) {
	after := int64(0)
	if token != "" {
		if after, err = strconv.ParseInt(token, 10, 64); err != nil {
			return nil, "", rpcerror.BadField(reasonInvalidField, "page_token", "is not of the page before")
		}
	}
	if pageSize == 0 {
		pageSize = defaultPageSize
	}
	r.mu.Lock()
	all := make([]*Process, 0, len(r.processes))
	for _, p := range r.processes {
		if p.sequence > after {
			all = append(all, p)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *Process) int { return int(a.sequence - b.sequence) })
	last := after
	for _, p := range all {
		record := p.Record()
		if len(states) > 0 && !slices.Contains(states, record.GetState()) {
			continue
		}
		if len(page) == pageSize {
			return page, strconv.FormatInt(last, 10), nil
		}
		page = append(page, record)
		last = p.sequence
	}
	return page, "", nil
}

// ended lets go of a process when its time is over.
func (r *Registry) ended(p *Process) {
	time.AfterFunc(p.ttl, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		// A service may have been started again meanwhile; then its end comes back here. Or it has gone already.
		if !p.forgotten && p.state == sandpoolv1.ProcessState_PROCESS_STATE_ENDED && !time.Now().Before(p.expireTime) {
			r.forgetLocked(p)
		}
	})
}

// revive starts a service again that has ended.
func (r *Registry) revive(p *Process) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !p.ended() {
		return nil
	}
	if err := r.checkLimitsLocked(p.request); err != nil {
		return err
	}
	select {
	case <-p.orders:
		// Nobody has taken it: it was meant for a run that is over.
	default:
	}
	p.mu.Lock()
	p.expireTime = time.Time{}
	end := p.end
	p.mu.Unlock()
	run, err := p.again(end)
	if err != nil {
		return err
	}
	go p.supervise(run)
	return nil
}

// account adds what a process has come to keep, and lets the output of ended processes go, the oldest first, when it is
// too much in all.
func (r *Registry) account(bytes int) {
	if r.kept.Add(int64(bytes)) <= maxKept {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Process, 0, len(r.processes))
	for _, p := range r.processes {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Process) int { return int(a.sequence - b.sequence) })
	for _, p := range all {
		if r.kept.Load() <= maxKept {
			return
		}
		p.mu.Lock()
		if p.state == sandpoolv1.ProcessState_PROCESS_STATE_ENDED && p.pumping == 0 {
			r.dropLocked(p)
			p.changedLocked()
		}
		p.mu.Unlock()
	}
}

// dropLocked lets go of what a process printed.
func (r *Registry) dropLocked(p *Process) {
	for stream := range p.rings {
		r.kept.Add(-int64(len(p.rings[stream].bytes)))
		p.rings[stream].forget()
	}
}

func (r *Registry) stopping() bool {
	select {
	case <-r.options.Stopping:
		return true
	default:
		return false
	}
}
