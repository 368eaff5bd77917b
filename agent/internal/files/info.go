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

// describer makes the answers of one call; the names of owners are looked up once for all of them.
type describer struct {
	names *users.Names
}

func (s *Service) describer() describer { return describer{names: s.users.Names()} }

// place describes what is at a place, of a symbolic link the link itself.
func (d describer) place(p *place, path string) (*sandpoolv1.FileInfo, error) {
	stat, err := p.stat()
	if err != nil {
		return nil, err
	}
	return d.info(p.dir, p.name, path, stat)
}

// info describes a file by its status; the folder and the name in it serve to read a symbolic link.
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

// timestamp is a time of a file; one that no Timestamp can hold, for a file may have any, becomes the nearest.
func timestamp(t unix.Timespec) *timestamppb.Timestamp {
	const first, last = -62135596800, 253402300799 // The years 1 to 9999.
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

// etag tells contents apart. The time of the last change of status is in it, for that of the content can be set back.
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

func isRegular(stat *unix.Stat_t) bool { return stat.Mode&unix.S_IFMT == unix.S_IFREG }
func isFolder(stat *unix.Stat_t) bool  { return stat.Mode&unix.S_IFMT == unix.S_IFDIR }
func isLink(stat *unix.Stat_t) bool    { return stat.Mode&unix.S_IFMT == unix.S_IFLNK }

// mustBeFile is nil for a regular file.
func mustBeFile(stat *unix.Stat_t) error {
	switch {
	case isFolder(stat):
		return errIsDirectory
	case !isRegular(stat):
		return errNotFile
	}
	return nil
}
