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
	// maxBufferedBytes limits the buffered output of all processes, running and exited.
	maxBufferedBytes = 64 << 20
	defaultPageSize  = 100
)

// Reasons of errors. They are a stable part of the contract.
const (
	reasonNotFound      = "PROCESS_NOT_FOUND"
	reasonExists        = "PROCESS_ALREADY_EXISTS"
	reasonProcessExited = "PROCESS_EXITED"
	reasonStdinClosed   = "STDIN_CLOSED"
	reasonNoTerminal    = "NO_TERMINAL"
	reasonNotAService   = "NOT_A_SERVICE"
	reasonNameTaken     = "SERVICE_NAME_TAKEN"
	reasonOffset        = "OFFSET_OUT_OF_RANGE"
	reasonCommandLimit  = "COMMAND_LIMIT"
	reasonInvalidField  = "INVALID_FIELD"
)

// Options are the parts of the agent that the registry uses.
type Options struct {
	// NullFile is a descriptor of /dev/null, or -1 if it could not be opened.
	NullFile int
	// OOMKills returns the kernel's count of out-of-memory kills.
	OOMKills func() int64
	// Exit returns how a run exited. forced is the reason for which the agent killed the run, UNSPECIFIED if it did
	// not.
	Exit func(run *process.Process, oomKillsBefore int64, forced sandpoolv1.ExitReason) *sandpoolv1.ProcessExit
	// KillTree kills a run with all of its descendants, and returns when they have ended.
	KillTree func(run *process.Process)
	// StreamError returns the error for a pipe or a terminal that cannot be created.
	StreamError func(error) error
	// Stopping is closed when the agent stops all processes.
	Stopping <-chan struct{}
	// Log returns a writer for the output of a service. The writer never blocks.
	Log func(source string, stream sandpoolv1.OutputStream) io.WriteCloser
}

// Registry contains all processes of the sandbox.
type Registry struct {
	options       Options
	bufferedBytes atomic.Int64

	mu        sync.Mutex
	processes map[string]*Process
	sequence  int64
}

// NewRegistry returns an empty registry.
func NewRegistry(options Options) *Registry {
	return &Registry{options: options, processes: make(map[string]*Process)}
}

// Start starts the process of a request. If a process with the same id exists and was started by an equal request, it
// is returned instead.
func (r *Registry) Start(request *sandpoolv1.StartProcessRequest, start Start) (*Process, error) {
	if request.GetProcessId() == "" {
		return nil, rpcerror.BadField(reasonInvalidField, "process_id", "must not be empty; set an identifier")
	}
	request = proto.CloneOf(request)
	request.SandboxId = ""
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.processes[request.GetProcessId()]; known != nil {
		if digest(known.request) != digest(request) {
			return nil, rpcerror.About(codes.AlreadyExists, reasonExists, request.GetProcessId(),
				"process_id %q belongs to a process that was started by a different request; choose another process_id",
				request.GetProcessId())
		}
		return known, nil
	}
	if err := r.checkLimitsLocked(request); err != nil {
		return nil, err
	}
	r.evictLocked()
	r.sequence++
	p := newProcess(r, request, start, r.sequence)
	// The lock is held during the start, so that a retry finds the process and does not start a second one.
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
		registry:     r,
		request:      request,
		sequence:     sequence,
		start:        start,
		overflow:     request.GetOutputOverflow(),
		service:      request.GetService(),
		retention:    defaultRetention,
		killRequests: make(chan killRequest, 1),
		changed:      make(chan struct{}),
		clients:      make(map[*client]struct{}),
	}
	limit := defaultBufferBytes
	if request.OutputBufferBytes != nil {
		limit = int(request.GetOutputBufferBytes())
	}
	for stream := range p.rings {
		p.rings[stream].limit = limit
	}
	if request.GetRetention() != nil {
		p.retention = request.GetRetention().AsDuration()
	}
	return p
}

func (r *Registry) checkLimitsLocked(request *sandpoolv1.StartProcessRequest) error {
	running := 0
	for _, other := range r.processes {
		if other.exited() {
			continue
		}
		running++
		if name := request.GetService().GetName(); name != "" && name == other.service.GetName() {
			return rpcerror.About(codes.FailedPrecondition, reasonNameTaken, name,
				"a service %q is running already, as process %q; kill that process first, or choose another name",
				name, other.request.GetProcessId())
		}
	}
	if running >= maxRunning {
		return rpcerror.New(codes.ResourceExhausted, reasonCommandLimit,
			"%d processes are running in this sandbox, which is the limit; wait until one exits", maxRunning)
	}
	return nil
}

// evictLocked deletes the oldest record of an exited process if the limit of records is reached. Such a record exists
// because fewer processes can run than records are retained.
func (r *Registry) evictLocked() {
	if len(r.processes) < maxRecords {
		return
	}
	var oldest *Process
	for _, p := range r.processes {
		if (oldest == nil || p.sequence < oldest.sequence) && p.exited() {
			oldest = p
		}
	}
	if oldest != nil {
		oldest.mu.Lock()
		r.deleteLocked(oldest)
		oldest.mu.Unlock()
	}
}

// deleteLocked deletes the record and the output of an exited process. p.mu must be held too.
func (r *Registry) deleteLocked(p *Process) {
	p.deleted = true
	r.dropOutputLocked(p)
	delete(r.processes, p.request.GetProcessId())
	p.notifyLocked()
}

// digest returns the same value for equal requests.
func digest(request *sandpoolv1.StartProcessRequest) [sha256.Size]byte {
	// A request that was decoded can be encoded, so the error is always nil.
	data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	return sha256.Sum256(data)
}

// Get returns a process by its id, or a service by its name. Of several services with the name it returns the latest,
// which is the running one if one is running.
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
		return nil, rpcerror.About(codes.NotFound, reasonNotFound, ref,
			"process %q does not exist; list the processes of the sandbox", ref)
	}
	return found, nil
}

// List returns a page of the processes in these states (all states if states is empty), oldest first, and the token of
// the next page.
func (r *Registry) List(
	states []sandpoolv1.ProcessState, pageSize int, token string,
) (page []*sandpoolv1.Process, next string, err error) {
	after := int64(0)
	if token != "" {
		if after, err = strconv.ParseInt(token, 10, 64); err != nil {
			return nil, "", rpcerror.BadField(reasonInvalidField, "page_token", "%q is not the next_page_token of a previous page; list from the first page", token)
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

// deleteAfterRetention deletes an exited process when its retention has passed.
func (r *Registry) deleteAfterRetention(p *Process) {
	time.AfterFunc(p.retention, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		// A restarted service calls this function again when it exits. The process can also be deleted already.
		if !p.deleted && p.state == sandpoolv1.ProcessState_PROCESS_STATE_EXITED && !time.Now().Before(p.expireTime) {
			r.deleteLocked(p)
		}
	})
}

// restartExited starts the next run of an exited service.
func (r *Registry) restartExited(p *Process) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !p.exited() {
		return nil
	}
	if err := r.checkLimitsLocked(p.request); err != nil {
		return err
	}
	select {
	case <-p.killRequests:
		// Discard a kill request that was meant for an earlier run.
	default:
	}
	p.mu.Lock()
	p.expireTime = time.Time{}
	exit := p.exit
	p.mu.Unlock()
	run, err := p.restart(exit)
	if err != nil {
		return err
	}
	go p.supervise(run)
	return nil
}

// addBuffered adds to the number of buffered bytes. If the total exceeds the limit, it drops the output of exited
// processes, oldest first.
func (r *Registry) addBuffered(bytes int) {
	if r.bufferedBytes.Add(int64(bytes)) <= maxBufferedBytes {
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
		if r.bufferedBytes.Load() <= maxBufferedBytes {
			return
		}
		p.mu.Lock()
		if p.state == sandpoolv1.ProcessState_PROCESS_STATE_EXITED && p.openOutputs == 0 {
			r.dropOutputLocked(p)
			p.notifyLocked()
		}
		p.mu.Unlock()
	}
}

// dropOutputLocked drops the buffered output of a process.
func (r *Registry) dropOutputLocked(p *Process) {
	for stream := range p.rings {
		r.bufferedBytes.Add(-int64(len(p.rings[stream].bytes)))
		p.rings[stream].clear()
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
