package processes

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

const (
	defaultInterval         = 2 * time.Second
	defaultTimeout          = 2 * time.Second
	defaultFailureThreshold = 3
	// Part of a response that is read before the connection is closed.
	maxResponseBytes = 64 << 10
	loopback         = "127.0.0.1"
)

// checkHealth starts to check the current run of a service periodically. The returned function stops the checks and
// waits until they have stopped.
func (p *Process) checkHealth() (stop func()) {
	check := p.service.GetHealthCheck()
	if check == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.runChecks(ctx, check)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (p *Process) runChecks(ctx context.Context, check *sandpoolv1.HealthCheck) {
	interval, timeout, failureThreshold := defaultInterval, defaultTimeout, defaultFailureThreshold
	if check.GetInterval() != nil {
		interval = check.GetInterval().AsDuration()
	}
	if check.GetTimeout() != nil {
		timeout = check.GetTimeout().AsDuration()
	}
	if check.FailureThreshold != nil {
		failureThreshold = int(check.GetFailureThreshold())
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failures := 0
	for {
		err := checkOnce(ctx, check, timeout)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			p.setHealth(sandpoolv1.ProcessHealth_PROCESS_HEALTH_HEALTHY, "")
		} else if failures++; failures >= failureThreshold {
			p.setHealth(sandpoolv1.ProcessHealth_PROCESS_HEALTH_UNHEALTHY, err.Error())
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *Process) setHealth(health sandpoolv1.ProcessHealth, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.health == health && p.healthMessage == message {
		return
	}
	p.health, p.healthMessage = health, message
	p.recordChangedLocked()
}

func checkOnce(ctx context.Context, check *sandpoolv1.HealthCheck, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if check.GetTcp() != nil {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address(check.GetTcp().GetPort()))
		if err != nil {
			return err
		}
		return connection.Close()
	}
	path := check.GetHttp().GetPath()
	if path == "" {
		path = "/"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(check.GetHttp().GetPort())+path, nil)
	if err != nil {
		return err
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxResponseBytes},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxResponseBytes)
	if response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("HTTP status %q is not from 200 to 399; check the service", response.Status)
	}
	return nil
}

func address(port int32) string {
	return net.JoinHostPort(loopback, strconv.Itoa(int(port)))
}
