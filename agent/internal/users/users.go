// Package users finds out who a command runs as, from the image's own /etc/passwd and /etc/group. Neither has to exist:
// numeric ids need no entry.
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

// The files belong to the sandbox, which may put anything there: what lies beyond this size is not read.
const maxFileSize = 4 << 20

// Identity is a resolved user.
type Identity struct {
	UID uint32
	GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	// Name is the user's name, or the id in digits if it has none.
	Name string
	// Home is the home directory; `/` if the user has none.
	Home string
}

// UnknownError says that a user or group is not known in the image, or that a specification is malformed.
type UnknownError struct {
	// What is a sentence for people.
	What string
}

func (e *UnknownError) Error() string { return e.What }

// Database is the pair of files to look users up in.
type Database struct {
	PasswdPath string
	GroupPath  string
}

// System is the image's own database.
var System = Database{PasswdPath: "/etc/passwd", GroupPath: "/etc/group"}

type passwdEntry struct {
	name string
	uid  uint32
	gid  uint32
	home string
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

// Lookup resolves `user`, `uid`, `user:group`, `uid:gid` and their mixtures as container engines do: a name wins over a
// number; a number without entry is taken as it is, with group 0; an explicit group replaces the supplementary ones.
// The empty specification means root. The error is always an *UnknownError.
func (d Database) Lookup(spec string) (Identity, error) {
	userSpec, groupSpec, groupGiven := strings.Cut(spec, ":")
	if spec == "" {
		userSpec = "0"
	} else if userSpec == "" || groupGiven && groupSpec == "" {
		return Identity{}, &UnknownError{What: fmt.Sprintf("malformed user %q: want a name or an id, then :group if wanted", spec)}
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
		if slices.Contains(group.members, identity.Name) && !slices.Contains(identity.Groups, group.gid) {
			identity.Groups = append(identity.Groups, group.gid)
		}
	}
	return identity, nil
}

// Names gives names to numbers, as the database was when the first was asked for. Not to be used concurrently.
type Names struct {
	database Database
	users    map[uint32]string
	groups   map[uint32]string
}

// Names makes a look-up for one call; it reads nothing yet.
func (d Database) Names() *Names { return &Names{database: d} }

// User is the name of a user, empty if it has none.
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

// Group is the name of a group, empty if it has none.
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
		return Identity{}, &UnknownError{What: fmt.Sprintf("the image has no user %q", spec)}
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
	return 0, &UnknownError{What: fmt.Sprintf("the image has no group %q", spec)}
}

// parseID takes decimal ids up to 2^32-2; the next one means "no id" to the kernel.
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
	return groupEntry{name: fields[0], gid: gid, members: strings.Split(fields[3], ",")}, err == nil
}

// readLines parses each line of a file and leaves out those that parse does not take. A file that is missing, is no
// plain file or cannot be read has no lines.
func readLines[T any](path string, parse func(string) (T, bool)) []T {
	// Non-blocking, for opening a named pipe put in the file's place would wait for ever.
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
