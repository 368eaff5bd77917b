package monitor

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/cgroup"
)

// Files of the kernel with metrics, in both cgroup versions.
var (
	cpuUsage    = cgroup.File{Controller: "cpuacct", Legacy: "cpuacct.usage", Unified: "cpu.stat"}
	cpuQuota    = cgroup.File{Controller: "cpu", Legacy: "cpu.cfs_quota_us", Unified: "cpu.max"}
	cpuPeriod   = cgroup.File{Controller: "cpu", Legacy: "cpu.cfs_period_us", Unified: "cpu.max"}
	memoryUsage = cgroup.File{Controller: "memory", Legacy: "memory.usage_in_bytes", Unified: "memory.current"}
	memoryStat  = cgroup.File{Controller: "memory", Legacy: "memory.stat", Unified: "memory.stat"}
	memoryLimit = cgroup.File{Controller: "memory", Legacy: "memory.limit_in_bytes", Unified: "memory.max"}
	pidsCurrent = cgroup.File{Controller: "pids", Legacy: "pids.current", Unified: "pids.current"}
	pidsMax     = cgroup.File{Controller: "pids", Legacy: "pids.max", Unified: "pids.max"}
)

const networkFile = "/proc/self/net/dev"

// sample is one measurement.
type sample struct {
	time    time.Time
	cpu     time.Duration
	metrics *sandpoolv1.SandboxMetrics
}

// measure reads the kernel's files. A metric that cannot be read is 0.
func measure() sample {
	now := time.Now()
	cpu := cpuTime()
	received, sent := network()
	return sample{time: now, cpu: cpu, metrics: &sandpoolv1.SandboxMetrics{
		Time:                 timestamppb.New(now),
		CpuTime:              durationpb.New(cpu),
		Cpus:                 cpus(),
		MemoryBytes:          max(0, number(read(memoryUsage))-inactive()),
		MemoryLimitBytes:     limit(read(memoryLimit)),
		NetworkReceivedBytes: received,
		NetworkSentBytes:     sent,
		Processes:            int32(min(number(read(pidsCurrent)), math.MaxInt32)),
		ProcessesLimit:       int32(min(limit(read(pidsMax)), math.MaxInt32)),
	}}
}

// since returns the metrics of the sample, with the CPU usage since an earlier sample.
func (s sample) since(earlier sample) *sandpoolv1.SandboxMetrics {
	if passed := s.time.Sub(earlier.time); passed > 0 {
		s.metrics.CpusUsed = max(0, float64(s.cpu-earlier.cpu)/float64(passed))
	}
	return s.metrics
}

// read returns the content of a file and whether it belongs to cgroup v1. The content is empty if the file does not
// exist.
func read(file cgroup.File) (content string, legacy bool) {
	for _, place := range file.Places() {
		if data, err := os.ReadFile(place.Path); err == nil {
			return strings.TrimSpace(string(data)), place.Legacy
		}
	}
	return "", false
}

func number(text string, _ bool) int64 {
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return value
}

// limit returns 0 for an unlimited value: `max`, or in cgroup v1 a very large number.
func limit(text string, legacy bool) int64 {
	if value := number(text, legacy); value < 1<<60 {
		return value
	}
	return 0
}

func cpuTime() time.Duration {
	content, legacy := read(cpuUsage)
	if legacy {
		return time.Duration(number(content, true))
	}
	return time.Duration(field(content, "usage_usec")) * time.Microsecond
}

func cpus() float64 {
	content, legacy := read(cpuQuota)
	quota, period := content, ""
	if legacy {
		period, _ = read(cpuPeriod)
	} else {
		quota, period, _ = strings.Cut(content, " ")
	}
	if number(quota, legacy) <= 0 || number(period, legacy) <= 0 {
		return 0
	}
	return float64(number(quota, legacy)) / float64(number(period, legacy))
}

// inactive returns the memory that the kernel can reclaim immediately: the cache of files that were not used recently.
func inactive() int64 {
	content, legacy := read(memoryStat)
	if legacy {
		return field(content, "total_inactive_file")
	}
	return field(content, "inactive_file")
}

// field returns the value of the line `name N`.
func field(content, name string) int64 {
	for line := range strings.Lines(content) {
		if found, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && found == name {
			return number(value, false)
		}
	}
	return 0
}

func network() (received, sent int64) {
	data, err := os.ReadFile(networkFile)
	if err != nil {
		return 0, 0
	}
	return parseNetwork(data)
}

// parseNetwork sums the received and sent bytes of all interfaces except loopback: the first and the ninth number of
// each line.
func parseNetwork(data []byte) (received, sent int64) {
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		name, numbers, found := strings.Cut(scanner.Text(), ":")
		fields := strings.Fields(numbers)
		if !found || strings.TrimSpace(name) == "lo" || len(fields) < 9 {
			continue
		}
		received += number(fields[0], false)
		sent += number(fields[8], false)
	}
	return received, sent
}
