// Package reaper collects the exit status of every child of this process: the commands that it started itself and the
// orphans that the kernel hands to the first process of a pid namespace.
//
// There must be one Reaper per process, every child must be started through Start, and nothing else in the process may
// wait for a child (os/exec and os.StartProcess do): whoever called wait second would find the status gone.
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

// Child is one process started through Reaper.Start.
type Child struct {
	// PID is the process id. Once Done is closed the kernel may give it to another process.
	PID int

	done    chan struct{}
	status  unix.WaitStatus
	endTime time.Time
}

// Done is closed once the process has ended and been reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Status is how the process ended. To be called after Done is closed.
func (c *Child) Status() unix.WaitStatus { return c.status }

// EndTime is when the process was reaped. To be called after Done is closed.
func (c *Child) EndTime() time.Time { return c.endTime }

// Reaper is the one place that waits for children.
type Reaper struct {
	// mu is held over every fork and over every wait, so that no child can be reaped before it is in children.
	mu       sync.Mutex
	children map[int]*Child
	// idle is closed whenever there is no child at all, and replaced when the next one is started.
	idle     chan struct{}
	idleNow  bool
	signals  chan os.Signal
	stop     chan struct{}
	finished chan struct{}
}

// New starts a reaper. Orphans come to it only if the process is the first of its pid namespace or a subreaper.
func New() *Reaper {
	r := &Reaper{
		children: make(map[int]*Child),
		idle:     make(chan struct{}),
		// One place is enough: each signal leads to waiting until nothing is left to reap.
		signals:  make(chan os.Signal, 1),
		stop:     make(chan struct{}),
		finished: make(chan struct{}),
	}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.loop()
	return r
}

// Close stops reaping. Children that still run stay unreaped.
func (r *Reaper) Close() {
	signal.Stop(r.signals)
	close(r.stop)
	<-r.finished
}

// Start runs fork, which starts one process and returns its id, and follows that process. Calls are serialised, so fork
// may change process-wide state for the time of the fork.
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

// WaitIdle waits until this process has no child, neither its own nor adopted, or until ctx ends.
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

// reap collects all children that have ended by now.
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
			slog.Error("cannot wait for children", "error", err)
			return
		case pid == 0:
			// Children there are, but none has ended. One that was adopted after the last ECHILD counts again.
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
