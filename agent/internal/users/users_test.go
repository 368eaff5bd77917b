package users_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"sandpool/agent/internal/users"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
# a comment and an invalid line:
broken:x:not-a-number:0::/:/bin/sh
app:x:1000:1001:An App,,,:/home/app:/bin/sh
homeless:x:1002:1002:::/bin/sh
4242:x:7:8::/home/digits:/bin/sh
`

const group = `root:x:0:
wheel:x:10:root,app
app:x:1001:
docker:x:999:app
digits:x:8:4242
`

func database(t *testing.T) users.Database {
	t.Helper()
	dir := t.TempDir()
	d := users.Database{PasswdPath: filepath.Join(dir, "passwd"), GroupPath: filepath.Join(dir, "group")}
	for path, text := range map[string]string{d.PasswdPath: passwd, d.GroupPath: group} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestLookupResolvesUsers(t *testing.T) {
	d := database(t)
	for spec, want := range map[string]users.Identity{
		"":            {UID: 0, GID: 0, Groups: []uint32{10}, Name: "root", Home: "/root"},
		"root":        {UID: 0, GID: 0, Groups: []uint32{10}, Name: "root", Home: "/root"},
		"0":           {UID: 0, GID: 0, Groups: []uint32{10}, Name: "root", Home: "/root"},
		"app":         {UID: 1000, GID: 1001, Groups: []uint32{10, 999}, Name: "app", Home: "/home/app"},
		"1000":        {UID: 1000, GID: 1001, Groups: []uint32{10, 999}, Name: "app", Home: "/home/app"},
		"1000:5":      {UID: 1000, GID: 5, Name: "app", Home: "/home/app"},
		"app:docker":  {UID: 1000, GID: 999, Name: "app", Home: "/home/app"},
		"homeless":    {UID: 1002, GID: 1002, Name: "homeless", Home: "/"},
		"31337":       {UID: 31337, GID: 0, Name: "31337", Home: "/"},
		"31337:wheel": {UID: 31337, GID: 10, Name: "31337", Home: "/"},
		"4242":        {UID: 7, GID: 8, Groups: []uint32{8}, Name: "4242", Home: "/home/digits"},
	} {
		got, err := d.Lookup(spec)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", spec, got, err, want)
		}
	}
}

func TestLookupRejectsUnknownAndMalformedUsers(t *testing.T) {
	d := database(t)
	for _, spec := range []string{"nobody", "broken", "app:nogroup", ":5", "app:", "-1", "4294967295", "99999999999", "1.5"} {
		identity, err := d.Lookup(spec)
		var unknown *users.UnknownError
		if !errors.As(err, &unknown) {
			t.Errorf("%q: %+v, %v; want an UnknownError", spec, identity, err)
		}
	}
}

func TestLookupIgnoresUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"missing": filepath.Join(dir, "missing"), "pipe": pipe, "directory": dir} {
		d := users.Database{PasswdPath: path, GroupPath: path}
		got, err := d.Lookup("12:34")
		if want := (users.Identity{UID: 12, GID: 34, Name: "12", Home: "/"}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
		if _, err := d.Lookup("root"); err == nil {
			t.Errorf("%s: found a name", name)
		}
	}
}
