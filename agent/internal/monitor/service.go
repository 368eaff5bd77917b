// Package monitor implements MonitorService of sandpool.v1: logs and metrics of the sandbox.
package monitor

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/logs"
)

const (
	defaultInterval = time.Second
	// Minimum interval over which the CPU usage is measured.
	minMeasureTime = 50 * time.Millisecond
	// Maximum age of a sample that is used as the start of the interval.
	maxSampleAge = time.Minute
)

// Service implements MonitorService.
type Service struct {
	sandpoolv1.UnimplementedMonitorServiceServer

	buffer   *logs.Buffer
	stopping <-chan struct{}
	// keepAlive is the interval after which an empty message is sent on an idle stream.
	keepAlive time.Duration

	mu   sync.Mutex
	last sample
}

// New returns a service that reads from the log buffer. stopping is closed when the agent starts to stop; streams end
// then.
func New(buffer *logs.Buffer, stopping <-chan struct{}) *Service {
	return &Service{buffer: buffer, stopping: stopping, keepAlive: keepAlive}
}

// GetMetrics implements MonitorService.
func (s *Service) GetMetrics(
	ctx context.Context, _ *sandpoolv1.GetMetricsRequest,
) (*sandpoolv1.GetMetricsResponse, error) {
	s.mu.Lock()
	earlier := s.last
	s.mu.Unlock()
	if age := time.Since(earlier.time); age > maxSampleAge {
		earlier = measure()
	}
	if missing := minMeasureTime - time.Since(earlier.time); missing > 0 {
		timer := time.NewTimer(missing)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	now := measure()
	s.mu.Lock()
	s.last = now
	s.mu.Unlock()
	return &sandpoolv1.GetMetricsResponse{Metrics: now.since(earlier)}, nil
}

// WatchMetrics implements MonitorService.
func (s *Service) WatchMetrics(request *sandpoolv1.WatchMetricsRequest, stream sandpoolv1.MonitorService_WatchMetricsServer) error {
	interval := defaultInterval
	if request.GetInterval() != nil {
		interval = request.GetInterval().AsDuration()
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	earlier := measure()
	for {
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.stopping:
			return nil
		}
		now := measure()
		if err := stream.Send(&sandpoolv1.WatchMetricsResponse{Metrics: now.since(earlier)}); err != nil {
			return err
		}
		earlier = now
	}
}
