package monitor

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/logs"
)

const (
	keepAlive = 15 * time.Second
	// How much is sent in one message.
	maxBatch      = 256
	maxBatchBytes = 256 << 10
)

// ReadLogs implements MonitorService.
func (s *Service) ReadLogs(request *sandpoolv1.ReadLogsRequest, stream sandpoolv1.MonitorService_ReadLogsServer) error {
	after := request.GetAfterSequence()
	timer := time.NewTimer(s.keepAlive)
	defer timer.Stop()
	for first := true; ; first = false {
		sent := false
		found, lost, more := s.book.Since(after)
		wanted := filter(request, found)
		if first && request.Tail != nil {
			wanted = wanted[max(0, len(wanted)-int(request.GetTail())):]
		}
		if len(wanted) > 0 || lost > 0 {
			if err := send(stream, wanted, lost); err != nil {
				return err
			}
			sent = true
		}
		if len(found) > 0 {
			after = found[len(found)-1].Sequence
		}
		if !request.GetFollow() {
			return nil
		}
		if sent {
			// Entries that nobody asked for are no sign of life for whoever waits for others.
			timer.Reset(s.keepAlive)
		}
		select {
		case <-more:
		case <-timer.C:
			if err := stream.Send(&sandpoolv1.ReadLogsResponse{}); err != nil {
				return err
			}
			timer.Reset(s.keepAlive)
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.stopping:
			return nil
		}
	}
}

func filter(request *sandpoolv1.ReadLogsRequest, entries []logs.Entry) []logs.Entry {
	var since time.Time
	if request.GetSince() != nil {
		since = request.GetSince().AsTime()
	}
	if len(request.GetSources()) == 0 && since.IsZero() {
		return entries
	}
	var wanted []logs.Entry
	for _, entry := range entries {
		if len(request.GetSources()) > 0 && !slices.Contains(request.GetSources(), entry.Source) {
			continue
		}
		if !entry.Time.Before(since) {
			wanted = append(wanted, entry)
		}
	}
	return wanted
}

// send sends entries in as many messages as they take, each when the one before has gone.
func send(stream sandpoolv1.MonitorService_ReadLogsServer, entries []logs.Entry, lost int64) error {
	for len(entries) > 0 || lost > 0 {
		message := &sandpoolv1.ReadLogsResponse{LostEntries: lost}
		bytes := 0
		for len(entries) > 0 && len(message.Entries) < maxBatch && bytes < maxBatchBytes {
			entry := entries[0]
			entries = entries[1:]
			bytes += len(entry.Text)
			message.Entries = append(message.Entries, &sandpoolv1.LogEntry{
				Sequence: entry.Sequence,
				Time:     timestamppb.New(entry.Time),
				Source:   entry.Source,
				Stream:   entry.Stream,
				Text:     entry.Text,
				Partial:  entry.Partial,
			})
		}
		if err := stream.Send(message); err != nil {
			return err
		}
		lost = 0
	}
	return nil
}
