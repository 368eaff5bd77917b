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
	// Watches at once. Each takes one of the few that the kernel gives to a user on the whole machine.
	maxWatches = 8
	// Folders of one watch.
	maxWatched = 8192
	// How often something is said when nothing happens.
	keepAlive = 15 * time.Second
	// What is read of events at once; the kernel keeps up to 16,384 more, then tells that it lost some.
	eventBytes = 16 << 10

	folderEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_MODIFY |
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
		return exhausted(reasonWatchLimit, "%d watches run in this sandbox already: end one, or watch a common folder", maxWatches)
	}
	w, err := newWatch(name, request.GetRecursive(), stream)
	if err != nil {
		return failure(name, err)
	}
	defer w.events.Close()
	// Closing makes a read that waits return.
	defer context.AfterFunc(stream.Context(), func() { w.events.Close() })()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-s.stopping:
			w.events.Close()
		case <-over:
		}
	}()
	err = w.run()
	if errors.Is(err, os.ErrClosed) {
		return ended(stream.Context())
	}
	return failure(name, err)
}

// watch follows one folder, or one file by its name in its folder: so it is seen when the file is replaced.
type watch struct {
	stream    grpc.ServerStreamingServer[sandpoolv1.WatchFilesResponse]
	events    *os.File
	fd        int
	recursive bool
	// base is the path that is watched, root the folder of it that the kernel watches.
	base string
	root int32
	// only is the one name of the folder that counts, empty for all.
	only string
	// folders are the paths of what is watched.
	folders map[int32]string
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
		recursive: recursive && isFolder(stat), folders: make(map[int32]string),
	}
	inner := p.name
	if !isFolder(stat) {
		inner, w.only = ".", p.name
	}
	folder, err := openAt(p.dir, inner, openFolder, 0)
	if err == nil {
		w.root, err = w.add(folder, name)
		if err == nil && w.recursive {
			err = w.addInner(folder, name, false, 0)
		}
		unix.Close(folder)
	}
	if err != nil {
		w.events.Close()
		return nil, err
	}
	return w, nil
}

func watchError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EMFILE) {
		return exhausted(reasonWatchLimit, "the machine's kernel lets nobody watch more files at the moment: watch less")
	}
	return err
}

// add watches an open folder.
func (w *watch) add(folder int, name string) (int32, error) {
	if len(w.folders) >= maxWatched {
		return 0, exhausted(reasonWatchLimit, "more than %d folders: watch a smaller part, or not recursively", maxWatched)
	}
	number, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", folder), folderEvents)
	if err != nil {
		return 0, watchError(err)
	}
	w.folders[int32(number)] = name
	return int32(number), nil
}

// addInner watches the folders in an open folder. What is in it is told if it was made since the folder was.
func (w *watch) addInner(folder int, name string, tell bool, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	return eachEntry(folder, func(e entry) error {
		inner := path.Join(name, e.name)
		if tell {
			if err := w.send(sandpoolv1.FileChange_FILE_CHANGE_CREATED, inner); err != nil {
				return err
			}
		}
		if !e.isFolder(folder) {
			return ended(w.stream.Context())
		}
		return w.addFolder(folder, e.name, inner, tell, depth+1)
	})
}

// addFolder watches a folder in an open one, with all in it. One that is another thing by now is left out.
func (w *watch) addFolder(dir int, name, full string, tell bool, depth int) error {
	fd, err := openAt(dir, name, openFolder, 0)
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
	return w.addInner(fd, full, tell, depth)
}

func (w *watch) send(change sandpoolv1.FileChange, name string) error {
	return w.stream.Send(&sandpoolv1.WatchFilesResponse{Change: change, Path: printable(name)})
}

// run tells what happens until nothing more can.
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
		over, err := w.tell(buffer[:n])
		if err != nil || over {
			return err
		}
	}
}

// tell tells the events of the kernel's form: watch, mask, cookie, length of the name, name with NULs at its end. It is
// over when what was watched is gone.
func (w *watch) tell(data []byte) (over bool, err error) {
	for len(data) >= unix.SizeofInotifyEvent {
		number := int32(binary.NativeEndian.Uint32(data))
		mask := binary.NativeEndian.Uint32(data[4:])
		length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(data[12:]))
		if length > len(data) {
			return false, errors.New("the kernel gave a part of an event")
		}
		name := strings.TrimRight(string(data[unix.SizeofInotifyEvent:length]), "\x00")
		data = data[length:]
		if over, err := w.event(number, mask, name); err != nil || over {
			return over, err
		}
	}
	return false, nil
}

func (w *watch) event(number int32, mask uint32, name string) (over bool, err error) {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		return false, w.send(sandpoolv1.FileChange_FILE_CHANGE_OVERFLOW, w.base)
	}
	folder, known := w.folders[number]
	switch {
	case !known:
		return false, nil
	case number == w.root && mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0:
		return true, w.send(sandpoolv1.FileChange_FILE_CHANGE_REMOVED, w.base)
	case mask&unix.IN_IGNORED != 0:
		delete(w.folders, number)
		return false, nil
	case name == "" && (number != w.root || w.only != ""):
		return false, nil // The folder above tells the same with a name.
	case w.only != "" && name != w.only, isHidden(name):
		return false, nil
	}
	full := w.base
	if w.only == "" {
		full = path.Join(folder, name)
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

// isUnnamed is whether an event is of a file that has no name yet, such as our own scratch files: the kernel calls it
// by the number of its inode.
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

// follow watches a folder that came, or no longer one that was moved away. What was put into a new one before the watch
// began is told too; so of a file that comes at the same moment it may be told twice that it was made.
func (w *watch) follow(mask uint32, full string) error {
	if mask&(unix.IN_MOVED_FROM|unix.IN_DELETE) != 0 {
		for _, number := range slices.Collect(maps.Keys(w.folders)) {
			if name := w.folders[number]; name == full || strings.HasPrefix(name, full+"/") {
				// Fails if the folder is gone, and the watch with it.
				_, _ = unix.InotifyRmWatch(w.fd, uint32(number))
				delete(w.folders, number)
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
	return w.addFolder(p.dir, p.name, full, true, 0)
}
