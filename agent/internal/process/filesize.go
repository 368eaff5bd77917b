package process

import "golang.org/x/sys/unix"

// LimitFileSize limits the size of the files that processes can write if they start after this call (RLIMIT_FSIZE, soft
// and hard, in bytes).
//
// The limit is set permanently on the agent itself and inherited. Setting it on a process from outside would leave a
// gap after the start, and the kernel refuses it for processes of other users. The agent could not raise a limit again
// that it lowers during a fork. Both require CAP_SYS_RESOURCE, which containers do not have. So files that the agent
// writes are limited too. The error is EPERM if the current limit is lower and the agent is not permitted to raise it.
func (l *Launcher) LimitFileSize(bytes uint64) error {
	return unix.Prlimit(0, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: bytes}, nil)
}
