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
	// Number of names of a directory that are held in memory in order. A larger directory is read again for the
	// following names.
	orderedNames = 2048
	// Longer paths cannot be requested or used in a page token, so they are not listed.
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
	if err := w.directory(root, "", 1, p.after()); err != nil && !isPageFull(err) {
		return nil, failure(name, err)
	}
	return &sandpoolv1.ListDirectoryResponse{Files: p.files, NextPageToken: p.next()}, nil
}

// openTree opens a directory to read its contents. A symbolic link to it is followed.
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
	if !isDirectory(stat) {
		return -1, unix.ENOTDIR
	}
	return openAt(p.dir, p.name, openDirectory, 0)
}

var errPageFull = errors.New("the page is full")

func isPageFull(err error) bool { return errors.Is(err, errPageFull) }

// page collects one page of a list and determines the start of the next page.
type page struct {
	describer describer
	size      int
	digest    string
	from      string
	files     []*sandpoolv1.FileInfo
	last      string
	full      bool
}

// newPage returns the page of a request. The strings in of must be equal for all pages of a list.
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
			"does not belong to this request; repeat the request of the previous page, or leave page_token empty")
	}
	p.from = from
	return p, nil
}

// after returns the last path of the previous page, split into names; nil for the first page.
func (p *page) after() []string {
	if p.from == "" {
		return nil
	}
	return strings.Split(p.from, "/")
}

// next returns the token of the next page, empty on the last page.
func (p *page) next() string {
	if !p.full {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(p.digest + p.last))
}

// add adds an entry. The error is errPageFull if the page is full. An object that has vanished is skipped.
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

// walk visits a tree in the order of names. A directory precedes its contents.
type walk struct {
	ctx context.Context
	// base is the path of the tree.
	base string
	// pseudo is set if the tree is in a pseudo file system of the kernel. Otherwise such file systems are not entered.
	pseudo bool
	// enter reports whether to visit the contents of a directory, given its path relative to base and its level, which
	// is 1 for directories in base.
	enter func(relative string, level int) bool
	// visit is called with each entry of an open directory.
	visit func(dir int, name, relative, path string) error
}

// directory visits an open directory. If after is set, it starts with the entry that follows this path.
func (w *walk) directory(fd int, prefix string, level int, after []string) error {
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
		rest = after[1:] // It is on the previous page.
	} else if err := w.visit(fd, e.name, relative, path); err != nil {
		return at(path, err)
	}
	if !w.enter(relative, level) || !e.isDirectory(fd) {
		return nil
	}
	inner, err := openAt(fd, e.name, openDirectory, 0)
	if err != nil {
		if isMissing(err) || err == unix.ENOTDIR || err == unix.ELOOP {
			return nil // It was replaced in between.
		}
		return at(path, err)
	}
	defer unix.Close(inner)
	if !w.pseudo && isPseudo(fileSystem(inner)) {
		return nil
	}
	return w.directory(inner, relative, level+1, rest)
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
