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
	defaultInterval = 2 * time.Second
	defaultTimeout  = 2 * time.Second
	defaultRetries  = 3
	// How much of an answer is read, so that a server that is asked again can use the connection's end as it likes.
	maxAnswerBytes = 64 << 10
	loopback       = "127.0.0.1"
)

// checkHealth checks a service's present run again and again until it is told to stop.
func (p *Process) checkHealth() (stop func()) {
	check := p.service.GetHealthCheck()
	if check == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.keepChecking(ctx, check)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (p *Process) keepChecking(ctx context.Context, check *sandpoolv1.HealthCheck) {
	interval, timeout, retries := defaultInterval, defaultTimeout, defaultRetries
	if check.IntervalSecs != nil {
		interval = seconds(check.GetIntervalSecs())
	}
	if check.TimeoutSecs != nil {
		timeout = seconds(check.GetTimeoutSecs())
	}
	if check.Retries != nil {
		retries = int(check.GetRetries())
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
		} else if failures++; failures >= retries {
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
	p.noteLocked()
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
		Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxAnswerBytes},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswerBytes)
	if response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the answer was %s", response.Status)
	}
	return nil
}

func address(port int32) string {
	return net.JoinHostPort(loopback, strconv.Itoa(int(port)))
}
