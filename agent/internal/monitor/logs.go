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
	// Limits of one message.
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
		found, dropped, more := s.buffer.Since(after)
		matching := filter(request, found)
		if first && request.Tail != nil {
			matching = matching[max(0, len(matching)-int(request.GetTail())):]
		}
		if len(matching) > 0 || dropped > 0 {
			if err := send(stream, matching, dropped); err != nil {
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
			// Entries that the request excludes do not count as a sign of life, so the timer is reset only after a
			// message was sent.
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
	var matching []logs.Entry
	for _, entry := range entries {
		if len(request.GetSources()) > 0 && !slices.Contains(request.GetSources(), entry.Source) {
			continue
		}
		if !entry.Time.Before(since) {
			matching = append(matching, entry)
		}
	}
	return matching
}

// send sends entries in as many messages as needed, one after the other.
func send(stream sandpoolv1.MonitorService_ReadLogsServer, entries []logs.Entry, dropped int64) error {
	for len(entries) > 0 || dropped > 0 {
		message := &sandpoolv1.ReadLogsResponse{DroppedEntries: dropped}
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
		dropped = 0
	}
	return nil
}
