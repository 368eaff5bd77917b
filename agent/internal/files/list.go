package files

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// What is kept of one folder in order; a larger one is read again for the names after these.
	orderedNames = 2048
	// Longer paths can be neither asked for nor given in a page's token, so what lies there is not listed.
	maxListedPath = 4096
)

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// ListDirectory implements FileService.
func (s *Service) ListDirectory(
	ctx context.Context, request *sandpoolv1.ListDirectoryRequest,
) (*sandpoolv1.ListDirectoryResponse, error) {
	name, err := cleanPath("path", request.GetPath())
	if err != nil {
		return nil, err
	}
	depth := max(int(request.GetDepth()), 1)
	p, err := s.newPage(request.GetPageSize(), request.GetPageToken(), "list", name, strconv.Itoa(depth))
	if err != nil {
		return nil, err
	}
	root, err := openTree(name)
	if err != nil {
		return nil, failure(name, err)
	}
	defer unix.Close(root)
	w := walk{
		ctx: ctx, base: name, pseudo: isPseudo(fileSystem(root)),
		enter: func(_ string, level int) bool { return level < depth },
		visit: p.add,
	}
	if err := w.folder(root, "", 1, p.after()); err != nil && !isPageFull(err) {
		return nil, failure(name, err)
	}
	return &sandpoolv1.ListDirectoryResponse{Files: p.files, NextPageToken: p.next()}, nil
}

// openTree opens a folder to read all that is in it; a symbolic link to it is followed.
func openTree(name string) (int, error) {
	p, err := search{follow: true}.find(name)
	if err != nil {
		return -1, err
	}
	defer p.close()
	stat, err := p.stat()
	if err != nil {
		return -1, err
	}
	if !isFolder(stat) {
		return -1, unix.ENOTDIR
	}
	return openAt(p.dir, p.name, openFolder, 0)
}

var errPageFull = errors.New("the page is full")

func isPageFull(err error) bool { return errors.Is(err, errPageFull) }

// page collects a page of a list and knows where the next one begins.
type page struct {
	describer describer
	size      int
	digest    string
	from      string
	files     []*sandpoolv1.FileInfo
	last      string
	full      bool
}

// newPage reads a page's request. of are the things that must be the same for all pages of a list.
func (s *Service) newPage(size int32, token string, of ...string) (*page, error) {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	p := &page{describer: s.describer(), size: int(size), digest: string(sum[:6])}
	if p.size <= 0 {
		p.size = defaultPageSize
	}
	p.size = min(p.size, maxPageSize)
	if token == "" {
		return p, nil
	}
	decoded, err := base64.RawURLEncoding.DecodeString(token)
	from, found := strings.CutPrefix(string(decoded), p.digest)
	if err != nil || !found || from == "" {
		return nil, rpcerror.BadField(reasonInvalidField, "page_token",
			"belongs to another list; repeat the request of the page before, or leave it out")
	}
	p.from = from
	return p, nil
}

// after is the last path of the page before, in names; none for the first page.
func (p *page) after() []string {
	if p.from == "" {
		return nil
	}
	return strings.Split(p.from, "/")
}

// next is the token of the next page, empty on the last one.
func (p *page) next() string {
	if !p.full {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(p.digest + p.last))
}

// add takes an entry; errPageFull if there is no room for it. One that vanished meanwhile is left out.
func (p *page) add(dir int, name, relative, path string) error {
	if len(p.files) >= p.size {
		p.full = true
		return errPageFull
	}
	stat, err := lstat(dir, name)
	if err != nil {
		return ignoreMissing(err)
	}
	info, err := p.describer.info(dir, name, path, stat)
	if err != nil {
		return ignoreMissing(err)
	}
	p.files = append(p.files, info)
	p.last = relative
	return nil
}

func ignoreMissing(err error) error {
	if isMissing(err) {
		return nil
	}
	return err
}

// walk goes through a tree in the order of names, folders before what is in them.
type walk struct {
	ctx context.Context
	// base is the path of the tree.
	base string
	// pseudo is whether the tree lies in the kernel's own file systems; else those are not entered.
	pseudo bool
	// enter is whether to go into a folder, by its path relative to base and how deep it lies, 1 for those in base.
	enter func(relative string, level int) bool
	// visit takes an entry of an open folder.
	visit func(dir int, name, relative, path string) error
}

// folder goes through an open folder, from what follows a path in it on, if one is given.
func (w *walk) folder(fd int, prefix string, level int, after []string) error {
	from, inclusive := "", true
	if len(after) > 0 {
		from = after[0]
	}
	for {
		entries, more, err := smallest(w.ctx, fd, from, inclusive, orderedNames)
		if err != nil {
			return at(w.path(prefix), err)
		}
		for _, e := range entries {
			if err := w.entry(fd, e, prefix, level, after); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		from, inclusive = entries[len(entries)-1].name, false
	}
}

func (w *walk) entry(fd int, e entry, prefix string, level int, after []string) error {
	relative := e.name
	if prefix != "" {
		relative = prefix + "/" + e.name
	}
	path := w.path(relative)
	if len(path) >= maxListedPath {
		return nil
	}
	var rest []string
	if len(after) > 0 && e.name == after[0] {
		rest = after[1:] // It was visited, on the page before.
	} else if err := w.visit(fd, e.name, relative, path); err != nil {
		return at(path, err)
	}
	if !w.enter(relative, level) || !e.isFolder(fd) {
		return nil
	}
	inner, err := openAt(fd, e.name, openFolder, 0)
	if err != nil {
		if isMissing(err) || err == unix.ENOTDIR || err == unix.ELOOP {
			return nil // Another thing by now.
		}
		return at(path, err)
	}
	defer unix.Close(inner)
	if !w.pseudo && isPseudo(fileSystem(inner)) {
		return nil
	}
	return w.folder(inner, relative, level+1, rest)
}

func (w *walk) path(relative string) string {
	if w.base == "/" {
		return "/" + relative
	}
	if relative == "" {
		return w.base
	}
	return w.base + "/" + relative
}
