package processes

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

const defaultKeepAlive = 15 * time.Second

// client is one attached client: the offset up to which each stream was sent to it, the version of the record that was
// sent, and the stream that is sent next.
type client struct {
	sent    [streamCount]int64
	version int64
	next    int
}

// Attach sends the events of the process from the requested offsets until the process has exited and all output was
// sent, sending fails, or ctx ends. An event is sent after send has returned for the previous event.
func (p *Process) Attach(
	ctx context.Context, request *sandpoolv1.AttachProcessRequest, send func(*sandpoolv1.ProcessEvent) error,
) error {
	c, err := p.addClient(request)
	if err != nil {
		return err
	}
	defer p.removeClient(c)
	keepAlive := defaultKeepAlive
	if request.GetKeepAliveInterval() != nil {
		keepAlive = request.GetKeepAliveInterval().AsDuration()
	}
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	timer := time.NewTimer(keepAlive)
	defer timer.Stop()
	for {
		p.mu.Lock()
		event, sent := p.nextLocked(c, *chunk)
		changed := p.changed
		p.mu.Unlock()
		if event == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
				event = &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_KeepAlive{KeepAlive: &sandpoolv1.KeepAlive{}}}
			}
		}
		if err := send(event); err != nil {
			return err
		}
		if sent != nil {
			p.mu.Lock()
			sent()
			p.mu.Unlock()
		}
		if event.GetExited() != nil {
			return nil
		}
		timer.Reset(keepAlive)
	}
}

func (p *Process) addClient(request *sandpoolv1.AttachProcessRequest) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &client{version: -1}
	for stream, offset := range [streamCount]int64{request.GetStdoutOffset(), request.GetStderrOffset()} {
		end := p.rings[stream].end
		if offset > end {
			return nil, rpcerror.About(codes.OutOfRange, reasonOffset, p.request.GetProcessId(),
				"offset %d is after the end of %s, which has %d bytes; attach at an offset from 0 to %d", offset, streamLabels[stream], end, end)
		}
		if offset < 0 {
			offset = end
		}
		c.sent[stream] = offset
	}
	p.clients[c] = struct{}{}
	p.recordChangedLocked()
	return c, nil
}

var streamLabels = [streamCount]string{"standard output", "standard error"}

func (p *Process) removeClient(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, c)
	p.recordChangedLocked()
	if len(p.clients) == 0 && p.request.GetKillOnDisconnect() {
		select {
		case p.killRequests <- killRequest{reason: sandpoolv1.ExitReason_EXIT_REASON_DISCONNECTED}:
		default: // A kill request is pending already.
		}
	}
}

// nextLocked returns the next event for a client, or nil if there is none, and a function to call with mu held after
// the event was sent. The streams take turns.
func (p *Process) nextLocked(c *client, chunk []byte) (event *sandpoolv1.ProcessEvent, sent func()) {
	if c.version != p.version {
		version := p.version
		record := p.recordLocked()
		return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Process{Process: record}},
			func() { c.version = version }
	}
	for range streamCount {
		stream := c.next
		c.next = (c.next + 1) % streamCount
		buffer := &p.rings[stream]
		at := c.sent[stream]
		if at < buffer.start {
			start := buffer.start
			return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Gap{Gap: &sandpoolv1.OutputGap{
				Stream: streamTypes[stream], StartOffset: at, EndOffset: start,
			}}}, func() { p.sentLocked(c, stream, start) }
		}
		if n := buffer.read(at, chunk); n > 0 {
			return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Output{Output: &sandpoolv1.ProcessOutput{
				Stream: streamTypes[stream], Offset: at, Data: chunk[:n],
			}}}, func() { p.sentLocked(c, stream, at+int64(n)) }
		}
	}
	if p.state == sandpoolv1.ProcessState_PROCESS_STATE_EXITED && p.openOutputs == 0 {
		return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Exited{Exited: p.exit}}, nil
	}
	return nil, nil
}

// sentLocked records the offset up to which a stream was sent to a client. This unblocks a process that waits for room
// in its buffer.
func (p *Process) sentLocked(c *client, stream int, offset int64) {
	c.sent[stream] = offset
	p.delivered[stream] = max(p.delivered[stream], offset)
	p.notifyLocked()
}
