// Package monitor shows what goes on in the sandbox: MonitorService of sandpool.v1.
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
	// Over how long the use of CPUs is measured at least.
	shortest = 50 * time.Millisecond
	// A measurement older than this says nothing of now.
	longest = time.Minute
)

// Service implements MonitorService.
type Service struct {
	sandpoolv1.UnimplementedMonitorServiceServer

	book     *logs.Book
	stopping <-chan struct{}
	// keepAlive is how often something is sent on a stream on which nothing happens.
	keepAlive time.Duration

	mu   sync.Mutex
	last sample
}

// New makes a service that tells of the book. stopping is closed when the agent begins to stop: streams end then.
func New(book *logs.Book, stopping <-chan struct{}) *Service {
	return &Service{book: book, stopping: stopping, keepAlive: keepAlive}
}

// GetStats implements MonitorService.
func (s *Service) GetStats(
	ctx context.Context, _ *sandpoolv1.GetStatsRequest,
) (*sandpoolv1.GetStatsResponse, error) {
	s.mu.Lock()
	earlier := s.last
	s.mu.Unlock()
	if age := time.Since(earlier.time); age > longest {
		earlier = measure()
	}
	if missing := shortest - time.Since(earlier.time); missing > 0 {
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
	return &sandpoolv1.GetStatsResponse{Stats: now.since(earlier)}, nil
}

// WatchStats implements MonitorService.
func (s *Service) WatchStats(request *sandpoolv1.WatchStatsRequest, stream sandpoolv1.MonitorService_WatchStatsServer) error {
	interval := defaultInterval
	if request.IntervalSecs != nil {
		interval = time.Duration(request.GetIntervalSecs() * float64(time.Second))
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
		if err := stream.Send(&sandpoolv1.WatchStatsResponse{Stats: now.since(earlier)}); err != nil {
			return err
		}
		earlier = now
	}
}
