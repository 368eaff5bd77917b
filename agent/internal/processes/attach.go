package processes

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

const defaultKeepAlive = 15 * time.Second

// watcher is one attached client: up to where it was sent each stream, and what of the record.
type watcher struct {
	sent    [streamCount]int64
	version int64
	next    int
}

// Attach sends what happens to the process from the given offsets on, until it has ended and all was sent, or sending
// fails, or ctx ends. Each event is sent when the one before has gone.
func (p *Process) Attach(
	ctx context.Context, request *sandpoolv1.AttachProcessRequest, send func(*sandpoolv1.ProcessEvent) error,
) error {
	w, err := p.addWatcher(request)
	if err != nil {
		return err
	}
	defer p.removeWatcher(w)
	keepAlive := defaultKeepAlive
	if request.KeepAliveSecs != nil {
		keepAlive = seconds(request.GetKeepAliveSecs())
	}
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	timer := time.NewTimer(keepAlive)
	defer timer.Stop()
	for {
		p.mu.Lock()
		event, sent := p.nextLocked(w, *chunk)
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
		if event.GetEnded() != nil {
			return nil
		}
		timer.Reset(keepAlive)
	}
}

func (p *Process) addWatcher(request *sandpoolv1.AttachProcessRequest) (*watcher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &watcher{version: -1}
	for stream, offset := range [streamCount]int64{request.GetStdoutOffset(), request.GetStderrOffset()} {
		end := p.rings[stream].end
		if offset > end {
			return nil, rpcerror.About(codes.OutOfRange, reasonOffset, p.request.GetProcessId(),
				"%s has %d bytes so far, there is no byte %d", streamWords[stream], end, offset)
		}
		if offset < 0 {
			offset = end
		}
		w.sent[stream] = offset
	}
	p.watchers[w] = struct{}{}
	p.noteLocked()
	return w, nil
}

var streamWords = [streamCount]string{"standard output", "standard error"}

func (p *Process) removeWatcher(w *watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.watchers, w)
	p.noteLocked()
	if len(p.watchers) == 0 && p.request.GetKillOnDisconnect() {
		select {
		case p.orders <- order{reason: sandpoolv1.CommandEndReason_COMMAND_END_REASON_DISCONNECTED}:
		default: // It is to end already.
		}
	}
}

// nextLocked is the next event for a client, nil if there is none yet, and what is to be done, with mu held, once it
// was sent. Streams take turns.
func (p *Process) nextLocked(w *watcher, chunk []byte) (event *sandpoolv1.ProcessEvent, sent func()) {
	if w.version != p.version {
		version := p.version
		record := p.recordLocked()
		return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Process{Process: record}},
			func() { w.version = version }
	}
	for range streamCount {
		stream := w.next
		w.next = (w.next + 1) % streamCount
		kept := &p.rings[stream]
		at := w.sent[stream]
		if at < kept.begin {
			begin := kept.begin
			return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Gap{Gap: &sandpoolv1.OutputGap{
				Stream: streamNames[stream], Begin: at, End: begin,
			}}}, func() { p.sentLocked(w, stream, begin) }
		}
		if n := kept.read(at, chunk); n > 0 {
			return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Output{Output: &sandpoolv1.ProcessOutput{
				Stream: streamNames[stream], Offset: at, Data: chunk[:n],
			}}}, func() { p.sentLocked(w, stream, at+int64(n)) }
		}
	}
	if p.state == sandpoolv1.ProcessState_PROCESS_STATE_ENDED && p.pumping == 0 {
		return &sandpoolv1.ProcessEvent{Event: &sandpoolv1.ProcessEvent_Ended{Ended: p.end}}, nil
	}
	return nil, nil
}

// sentLocked notes up to where a client was sent a stream, and lets a process go on that waits for that.
func (p *Process) sentLocked(w *watcher, stream int, offset int64) {
	w.sent[stream] = offset
	p.delivered[stream] = max(p.delivered[stream], offset)
	p.changedLocked()
}

func seconds(value float64) time.Duration {
	return time.Duration(value * float64(time.Second))
}
