package files

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/users"
)

const permissionBits = 0o7777

// describer creates the descriptions for one call. It looks up the names of owners once for all of them.
type describer struct {
	names *users.Names
}

func (s *Service) describer() describer { return describer{names: s.users.Names()} }

// location describes the object at a location; for a symbolic link, the link itself.
func (d describer) location(p *location, path string) (*sandpoolv1.FileInfo, error) {
	stat, err := p.stat()
	if err != nil {
		return nil, err
	}
	return d.info(p.dir, p.name, path, stat)
}

// info describes a file by its status. The directory and the name are used to read a symbolic link.
func (d describer) info(dir int, name, path string, stat *unix.Stat_t) (*sandpoolv1.FileInfo, error) {
	info := &sandpoolv1.FileInfo{
		Path:       printable(path),
		Type:       fileType(stat.Mode),
		Mode:       stat.Mode & permissionBits,
		Uid:        stat.Uid,
		Gid:        stat.Gid,
		User:       printable(d.names.User(stat.Uid)),
		Group:      printable(d.names.Group(stat.Gid)),
		ModifyTime: timestamp(stat.Mtim),
		Etag:       etag(stat),
	}
	switch info.GetType() {
	case sandpoolv1.FileType_FILE_TYPE_FILE:
		info.Size = max(stat.Size, 0)
	case sandpoolv1.FileType_FILE_TYPE_SYMLINK:
		target, err := readLink(dir, name)
		if err != nil {
			return nil, err
		}
		info.LinkTarget = printable(target)
	}
	return info, nil
}

// timestamp converts a time of a file. A time that Timestamp cannot represent becomes the nearest possible one.
func timestamp(t unix.Timespec) *timestamppb.Timestamp {
	const first, last = -62135596800, 253402300799 // Years 1 to 9999.
	return timestamppb.New(time.Unix(min(max(t.Sec, first), last), t.Nsec))
}

func fileType(mode uint32) sandpoolv1.FileType {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return sandpoolv1.FileType_FILE_TYPE_FILE
	case unix.S_IFDIR:
		return sandpoolv1.FileType_FILE_TYPE_DIRECTORY
	case unix.S_IFLNK:
		return sandpoolv1.FileType_FILE_TYPE_SYMLINK
	default:
		return sandpoolv1.FileType_FILE_TYPE_OTHER
	}
}

// etag returns an identifier of the content. It includes the time of the last status change, because a process can set
// the modification time back.
func etag(stat *unix.Stat_t) string {
	var text strings.Builder
	for _, number := range []int64{int64(stat.Ino), stat.Size, nanoseconds(stat.Mtim), nanoseconds(stat.Ctim)} {
		if text.Len() > 0 {
			text.WriteByte('-')
		}
		text.WriteString(strconv.FormatUint(uint64(number), 36))
	}
	return text.String()
}

func nanoseconds(t unix.Timespec) int64 { return t.Sec*int64(time.Second) + t.Nsec }

func isRegular(stat *unix.Stat_t) bool   { return stat.Mode&unix.S_IFMT == unix.S_IFREG }
func isDirectory(stat *unix.Stat_t) bool { return stat.Mode&unix.S_IFMT == unix.S_IFDIR }
func isLink(stat *unix.Stat_t) bool      { return stat.Mode&unix.S_IFMT == unix.S_IFLNK }

// mustBeFile returns nil for a regular file, otherwise an error.
func mustBeFile(stat *unix.Stat_t) error {
	switch {
	case isDirectory(stat):
		return errIsDirectory
	case !isRegular(stat):
		return errNotFile
	}
	return nil
}
