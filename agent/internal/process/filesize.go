package process

import "golang.org/x/sys/unix"

// LimitFileSize bounds the files that processes started from now on can write (RLIMIT_FSIZE, soft and hard, in bytes).
//
// The limit is put on the agent itself, for good, and inherited. To set it on a process from outside would leave a gap
// after its start and is refused for other users' processes; and what the agent lowered for the time of a fork it could
// not raise again: both need CAP_SYS_RESOURCE, which containers lack. So files that the agent writes are under the limit
// too, as those of the processes are. EPERM: the limit is lower already, and the agent may not raise it.
func (l *Launcher) LimitFileSize(bytes uint64) error {
	return unix.Prlimit(0, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: bytes}, nil)
}
