// Package users resolves the user of a command by the image's /etc/passwd and /etc/group. The files are optional:
// numeric ids require no entry.
package users

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Maximum number of bytes to read from the files, because processes of the sandbox can write them.
const maxFileSize = 4 << 20

// Identity is a resolved user.
type Identity struct {
	UID uint32
	GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	// Name is the name of the user, or the numeric id if it has no name.
	Name string
	// Home is the home directory, or `/` if the user has none.
	Home string
}

// UnknownError is returned for a user or group that does not exist in the image, and for a malformed specification.
type UnknownError struct {
	// Message is for a person.
	Message string
}

func (e *UnknownError) Error() string { return e.Message }

// Database names the two files.
type Database struct {
	PasswdPath string
	GroupPath  string
}

// System is the database of the image.
var System = Database{PasswdPath: "/etc/passwd", GroupPath: "/etc/group"}

type passwdEntry struct {
	name string
	uid  uint32
	gid  uint32
	home string
}

type groupEntry struct {
	name  string
	gid   uint32
	users []string
}

// Lookup resolves `user`, `uid`, `user:group`, `uid:gid` and mixed forms as container engines do. A name takes
// precedence over a number. A number without an entry is used as is, with group 0. An explicit group replaces the
// supplementary groups. The empty specification means root. The error is always an *UnknownError.
func (d Database) Lookup(spec string) (Identity, error) {
	userSpec, groupSpec, groupGiven := strings.Cut(spec, ":")
	if spec == "" {
		userSpec = "0"
	} else if userSpec == "" || groupGiven && groupSpec == "" {
		return Identity{}, &UnknownError{Message: fmt.Sprintf("user %q is malformed; use a name or a numeric id, optionally followed by :group", spec)}
	}
	groups := readLines(d.GroupPath, parseGroup)
	identity, err := findUser(readLines(d.PasswdPath, parsePasswd), userSpec)
	if err != nil {
		return Identity{}, err
	}
	if groupGiven {
		identity.GID, err = findGroup(groups, groupSpec)
		return identity, err
	}
	for _, group := range groups {
		if slices.Contains(group.users, identity.Name) && !slices.Contains(identity.Groups, group.gid) {
			identity.Groups = append(identity.Groups, group.gid)
		}
	}
	return identity, nil
}

// Names returns the names of numeric ids. It reads the files once, at the first request. It must not be used
// concurrently.
type Names struct {
	database Database
	users    map[uint32]string
	groups   map[uint32]string
}

// Names returns the names of the database for one call. It reads nothing yet.
func (d Database) Names() *Names { return &Names{database: d} }

// User returns the name of a user, or an empty string if it has none.
func (n *Names) User(uid uint32) string {
	if n.users == nil {
		n.users = make(map[uint32]string)
		for _, entry := range readLines(n.database.PasswdPath, parsePasswd) {
			if _, taken := n.users[entry.uid]; !taken {
				n.users[entry.uid] = entry.name
			}
		}
	}
	return n.users[uid]
}

// Group returns the name of a group, or an empty string if it has none.
func (n *Names) Group(gid uint32) string {
	if n.groups == nil {
		n.groups = make(map[uint32]string)
		for _, entry := range readLines(n.database.GroupPath, parseGroup) {
			if _, taken := n.groups[entry.gid]; !taken {
				n.groups[entry.gid] = entry.name
			}
		}
	}
	return n.groups[gid]
}

func findUser(entries []passwdEntry, spec string) (Identity, error) {
	id, numberErr := parseID(spec)
	index := slices.IndexFunc(entries, func(e passwdEntry) bool { return e.name == spec })
	if index < 0 && numberErr == nil {
		index = slices.IndexFunc(entries, func(e passwdEntry) bool { return e.uid == id })
	}
	switch {
	case index >= 0:
		entry := entries[index]
		home := entry.home
		if !strings.HasPrefix(home, "/") {
			home = "/"
		}
		return Identity{UID: entry.uid, GID: entry.gid, Name: entry.name, Home: home}, nil
	case numberErr == nil:
		return Identity{UID: id, GID: 0, Name: strconv.FormatUint(uint64(id), 10), Home: "/"}, nil
	default:
		return Identity{}, &UnknownError{Message: fmt.Sprintf("user %q does not exist in the image; use a name from its /etc/passwd or a numeric id", spec)}
	}
}

func findGroup(groups []groupEntry, spec string) (uint32, error) {
	for _, group := range groups {
		if group.name == spec {
			return group.gid, nil
		}
	}
	if id, err := parseID(spec); err == nil {
		return id, nil
	}
	return 0, &UnknownError{Message: fmt.Sprintf("group %q does not exist in the image; use a name from its /etc/group or a numeric id", spec)}
}

// parseID accepts decimal ids up to 2^32-2. The kernel uses 2^32-1 for "no id".
func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, strconv.ErrRange
	}
	return uint32(id), nil
}

func parsePasswd(line string) (passwdEntry, bool) {
	fields := strings.Split(line, ":")
	if len(fields) < 6 || fields[0] == "" {
		return passwdEntry{}, false
	}
	uid, err1 := parseID(fields[2])
	gid, err2 := parseID(fields[3])
	return passwdEntry{name: fields[0], uid: uid, gid: gid, home: fields[5]}, err1 == nil && err2 == nil
}

func parseGroup(line string) (groupEntry, bool) {
	fields := strings.Split(line, ":")
	if len(fields) < 4 || fields[0] == "" {
		return groupEntry{}, false
	}
	gid, err := parseID(fields[2])
	return groupEntry{name: fields[0], gid: gid, users: strings.Split(fields[3], ",")}, err == nil
}

// readLines parses each line of a file and skips lines that parse rejects. It returns none for a file that does not
// exist, is not a regular file or cannot be read.
func readLines[T any](path string, parse func(string) (T, bool)) []T {
	// Open without blocking, because the path can be a named pipe, and opening it would block forever.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFileSize))
	if err != nil {
		return nil
	}
	var entries []T
	for line := range strings.Lines(string(data)) {
		if entry, ok := parse(strings.TrimSpace(line)); ok {
			entries = append(entries, entry)
		}
	}
	return entries
}
