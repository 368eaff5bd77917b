package files

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
)

const (
	// Maximum number of simultaneous watches. Each uses one inotify instance, of which the kernel permits few for each
	// user of the machine.
	maxWatches = 8
	// Maximum number of directories of one watch.
	maxWatched = 8192
	// Interval after which a response is sent if no change occurred.
	keepAlive = 15 * time.Second
	// Number of bytes of events that are read at once. The kernel queues up to 16,384 more events and then reports an
	// overflow.
	eventBytes = 16 << 10

	directoryEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_MODIFY |
		unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_EXCL_UNLINK | unix.IN_ONLYDIR
)

// WatchFiles implements FileService.
func (s *Service) WatchFiles(
	request *sandpoolv1.WatchFilesRequest, stream grpc.ServerStreamingServer[sandpoolv1.WatchFilesResponse],
) error {
	name, err := cleanPath("path", request.GetPath())
	if err != nil {
		return err
	}
	select {
	case s.watches <- struct{}{}:
		defer func() { <-s.watches }()
	default:
		return exhausted(reasonWatchLimit,
			"%d watches are running in this sandbox, which is the limit; end one, or watch a common directory", maxWatches)
	}
	w, err := newWatch(name, request.GetRecursive(), stream)
	if err != nil {
		return failure(name, err)
	}
	defer w.events.Close()
	// Closing the file ends a Read that waits.
	defer context.AfterFunc(stream.Context(), func() { w.events.Close() })()
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case <-s.stopping:
			w.events.Close()
		case <-finished:
		}
	}()
	err = w.run()
	if errors.Is(err, os.ErrClosed) {
		return contextError(stream.Context())
	}
	return failure(name, err)
}

// watch follows one directory, or one file by its name in its directory, so that a replaced file is noticed.
type watch struct {
	stream    grpc.ServerStreamingServer[sandpoolv1.WatchFilesResponse]
	events    *os.File
	fd        int
	recursive bool
	// base is the watched path. root is the kernel's number of the watched directory.
	base string
	root int32
	// only is the name of the watched file in the directory, or empty to watch all names.
	only string
	// directories are the paths of the watched directories.
	directories map[int32]string
}

func newWatch(
	name string, recursive bool, stream grpc.ServerStreamingServer[sandpoolv1.WatchFilesResponse],
) (*watch, error) {
	p, err := search{follow: true}.find(name)
	if err != nil {
		return nil, err
	}
	defer p.close()
	stat, err := p.stat()
	if err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, watchError(err)
	}
	w := &watch{
		stream: stream, events: os.NewFile(uintptr(fd), "inotify"), fd: fd, base: name,
		recursive: recursive && isDirectory(stat), directories: make(map[int32]string),
	}
	inner := p.name
	if !isDirectory(stat) {
		inner, w.only = ".", p.name
	}
	directory, err := openAt(p.dir, inner, openDirectory, 0)
	if err == nil {
		w.root, err = w.add(directory, name)
		if err == nil && w.recursive {
			err = w.addInner(directory, name, false, 0)
		}
		unix.Close(directory)
	}
	if err != nil {
		w.events.Close()
		return nil, err
	}
	return w, nil
}

func watchError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EMFILE) {
		return exhausted(reasonWatchLimit,
			"the limit of inotify watches of the machine is reached; end watches or watch fewer directories")
	}
	return err
}

// add watches an open directory.
func (w *watch) add(directory int, name string) (int32, error) {
	if len(w.directories) >= maxWatched {
		return 0, exhausted(reasonWatchLimit,
			"the watch contains more than %d directories, which is the limit; watch a smaller tree, or not recursively", maxWatched)
	}
	number, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", directory), directoryEvents)
	if err != nil {
		return 0, watchError(err)
	}
	w.directories[int32(number)] = name
	return int32(number), nil
}

// addInner watches the directories in an open directory. If report is set, it also reports the contents as created,
// because they were created after the directory and before its watch.
func (w *watch) addInner(directory int, name string, report bool, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	return eachEntry(directory, func(e entry) error {
		inner := path.Join(name, e.name)
		if report {
			if err := w.send(sandpoolv1.FileChange_FILE_CHANGE_CREATED, inner); err != nil {
				return err
			}
		}
		if !e.isDirectory(directory) {
			return contextError(w.stream.Context())
		}
		return w.addDirectory(directory, e.name, inner, report, depth+1)
	})
}

// addDirectory watches a directory in an open directory, with all of its contents. It does nothing if the object was
// replaced in between.
func (w *watch) addDirectory(dir int, name, full string, report bool, depth int) error {
	fd, err := openAt(dir, name, openDirectory, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil
	}
	if err != nil {
		return ignoreMissing(at(full, err))
	}
	defer unix.Close(fd)
	if isPseudo(fileSystem(fd)) {
		return nil
	}
	if _, err := w.add(fd, full); err != nil {
		return err
	}
	return w.addInner(fd, full, report, depth)
}

func (w *watch) send(change sandpoolv1.FileChange, name string) error {
	return w.stream.Send(&sandpoolv1.WatchFilesResponse{Change: change, Path: printable(name)})
}

// run sends the changes until the watch ends.
func (w *watch) run() error {
	if err := w.send(sandpoolv1.FileChange_FILE_CHANGE_UNSPECIFIED, w.base); err != nil {
		return err
	}
	buffer := make([]byte, eventBytes)
	for {
		if err := w.events.SetReadDeadline(time.Now().Add(keepAlive)); err != nil {
			return err
		}
		n, err := w.events.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err := w.send(sandpoolv1.FileChange_FILE_CHANGE_UNSPECIFIED, w.base); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		finished, err := w.reportEvents(buffer[:n])
		if err != nil || finished {
			return err
		}
	}
}

// reportEvents sends the changes for events of the kernel: watch, mask, cookie, length of the name, and name padded
// with NULs. finished is set when the watched path no longer exists.
func (w *watch) reportEvents(data []byte) (finished bool, err error) {
	for len(data) >= unix.SizeofInotifyEvent {
		number := int32(binary.NativeEndian.Uint32(data))
		mask := binary.NativeEndian.Uint32(data[4:])
		length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(data[12:]))
		if length > len(data) {
			return false, errors.New("the kernel returned an incomplete inotify event")
		}
		name := strings.TrimRight(string(data[unix.SizeofInotifyEvent:length]), "\x00")
		data = data[length:]
		if finished, err := w.event(number, mask, name); err != nil || finished {
			return finished, err
		}
	}
	return false, nil
}

func (w *watch) event(number int32, mask uint32, name string) (finished bool, err error) {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		return false, w.send(sandpoolv1.FileChange_FILE_CHANGE_OVERFLOW, w.base)
	}
	directory, known := w.directories[number]
	switch {
	case !known:
		return false, nil
	case number == w.root && mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0:
		return true, w.send(sandpoolv1.FileChange_FILE_CHANGE_REMOVED, w.base)
	case mask&unix.IN_IGNORED != 0:
		delete(w.directories, number)
		return false, nil
	case name == "" && (number != w.root || w.only != ""):
		return false, nil // The parent directory reports the same change with a name.
	case w.only != "" && name != w.only, isHidden(name):
		return false, nil
	}
	full := w.base
	if w.only == "" {
		full = path.Join(directory, name)
	}
	if w.isUnnamed(name, full) {
		return false, nil
	}
	if change := changeOf(mask); change != sandpoolv1.FileChange_FILE_CHANGE_UNSPECIFIED {
		err = w.send(change, full)
	}
	if err == nil && w.recursive && mask&unix.IN_ISDIR != 0 {
		err = w.follow(mask, full)
	}
	return false, err
}

// isUnnamed reports whether an event is about a file without a name, for example a scratch file of the agent. The
// kernel uses the number of its inode as name.
func (w *watch) isUnnamed(name, full string) bool {
	digits, found := strings.CutPrefix(name, "#")
	if !found || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return false
	}
	p, err := search{}.find(path.Join(path.Dir(full), name))
	if err != nil {
		return true
	}
	defer p.close()
	_, err = p.stat()
	return err != nil
}

func changeOf(mask uint32) sandpoolv1.FileChange {
	switch {
	case mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
		return sandpoolv1.FileChange_FILE_CHANGE_CREATED
	case mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
		return sandpoolv1.FileChange_FILE_CHANGE_REMOVED
	case mask&unix.IN_MODIFY != 0:
		return sandpoolv1.FileChange_FILE_CHANGE_MODIFIED
	case mask&unix.IN_ATTRIB != 0:
		return sandpoolv1.FileChange_FILE_CHANGE_ATTRIBUTES
	}
	return sandpoolv1.FileChange_FILE_CHANGE_UNSPECIFIED
}

// follow starts to watch a new directory, or stops to watch one that was moved away or removed. It reports objects that
// were created in a new directory before its watch started, so the creation of an object can be reported twice.
func (w *watch) follow(mask uint32, full string) error {
	if mask&(unix.IN_MOVED_FROM|unix.IN_DELETE) != 0 {
		for _, number := range slices.Collect(maps.Keys(w.directories)) {
			if name := w.directories[number]; name == full || strings.HasPrefix(name, full+"/") {
				// This fails if the directory was removed, and the watch with it.
				_, _ = unix.InotifyRmWatch(w.fd, uint32(number))
				delete(w.directories, number)
			}
		}
		return nil
	}
	if mask&(unix.IN_CREATE|unix.IN_MOVED_TO) == 0 {
		return nil
	}
	p, err := search{}.find(full)
	if err != nil {
		return ignoreMissing(err)
	}
	defer p.close()
	return w.addDirectory(p.dir, p.name, full, true, 0)
}
