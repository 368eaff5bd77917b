// Package reaper collects the exit status of every child of this process: the processes that it started, and the
// orphans that the kernel assigns to the first process of a pid namespace.
//
// A process must have one Reaper, every child must be started through Start, and no other code in the process can wait
// for a child, as os/exec and os.StartProcess do: only one waiter gets the status.
package reaper

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Child is a process that was started by Reaper.Start.
type Child struct {
	// PID is the process id. After Done is closed, the kernel can assign it to another process.
	PID int

	done    chan struct{}
	status  unix.WaitStatus
	endTime time.Time
}

// Done is closed after the process has exited and was reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Status returns how the process exited. Call it after Done is closed.
func (c *Child) Status() unix.WaitStatus { return c.status }

// EndTime returns the time at which the process was reaped. Call it after Done is closed.
func (c *Child) EndTime() time.Time { return c.endTime }

// Reaper waits for all children of this process.
type Reaper struct {
	// mu is held during every fork and every wait, so that no child is reaped before it is in children.
	mu       sync.Mutex
	children map[int]*Child
	// idle is closed when this process has no child, and replaced when the next child is started.
	idle     chan struct{}
	idleNow  bool
	signals  chan os.Signal
	stop     chan struct{}
	finished chan struct{}
}

// New starts a reaper. It gets orphans only if this process is the first process of its pid namespace or a subreaper.
func New() *Reaper {
	r := &Reaper{
		children: make(map[int]*Child),
		idle:     make(chan struct{}),
		// A capacity of one is sufficient, because each signal leads to reaping all exited children.
		signals:  make(chan os.Signal, 1),
		stop:     make(chan struct{}),
		finished: make(chan struct{}),
	}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.loop()
	return r
}

// Close stops reaping. Children that still run are not reaped.
func (r *Reaper) Close() {
	signal.Stop(r.signals)
	close(r.stop)
	<-r.finished
}

// Start calls fork, which starts a process and returns its id, and waits for that process in the background. Calls are
// serialized, so fork can change process-wide state during the fork.
func (r *Reaper) Start(fork func() (pid int, err error)) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	child := &Child{PID: pid, done: make(chan struct{})}
	r.children[pid] = child
	if r.idleNow {
		r.idle = make(chan struct{})
		r.idleNow = false
	}
	return child, nil
}

// WaitIdle waits until this process has no child, started or adopted, or until ctx ends.
func (r *Reaper) WaitIdle(ctx context.Context) error {
	r.reap()
	r.mu.Lock()
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Reaper) loop() {
	defer close(r.finished)
	for {
		select {
		case <-r.signals:
			r.reap()
		case <-r.stop:
			return
		}
	}
}

// reap collects all children that have exited.
func (r *Reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			if !r.idleNow {
				close(r.idle)
				r.idleNow = true
			}
			return
		case err != nil:
			slog.Error("waiting for child processes failed", "error", err)
			return
		case pid == 0:
			// Children exist, but none has exited. A child can have been adopted after the last ECHILD.
			if r.idleNow {
				r.idle = make(chan struct{})
				r.idleNow = false
			}
			return
		}
		child, ours := r.children[pid]
		if !ours {
			continue
		}
		delete(r.children, pid)
		child.status = status
		child.endTime = time.Now()
		close(child.done)
	}
}
