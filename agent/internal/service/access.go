package service

import (
	"os"
	"slices"
	"syscall"

	"sandpool/agent/internal/users"
)

// maySearch reports whether the mode of a directory permits a user other than root to search it.
func maySearch(info os.FileInfo, identity users.Identity) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case stat.Uid == identity.UID:
		return mode&0o100 != 0
	case stat.Gid == identity.GID || slices.Contains(identity.Groups, stat.Gid):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}
