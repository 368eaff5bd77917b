package files

import (
	"context"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sys/unix"

	sandpoolv1 "sandpool/agent/gen/sandpool/v1"
	"sandpool/agent/internal/rpcerror"
)

// Limits of pattern elements for which the time to match can grow exponentially.
const (
	maxBraces      = 8
	maxDoubleStars = 8
)

// pattern is a glob pattern, split into the directory in which the search starts and the rest.
type pattern struct {
	base string
	rest string
	// parts are the elements of rest that each match one level of directories, up to the first element that can match
	// several levels.
	parts []string
	// exact is set if parts are all elements of rest, so that nothing at a deeper level can match.
	exact bool
}

// GlobFiles implements FileService.
func (s *Service) GlobFiles(
	ctx context.Context, request *sandpoolv1.GlobFilesRequest,
) (*sandpoolv1.GlobFilesResponse, error) {
	glob, err := parsePattern(request.GetPattern())
	if err != nil {
		return nil, err
	}
	p, err := s.newPage(request.GetPageSize(), request.GetPageToken(), "glob", request.GetPattern())
	if err != nil {
		return nil, err
	}
	root, err := openTree(glob.base)
	if isMissing(err) || err == unix.ENOTDIR {
		return &sandpoolv1.GlobFilesResponse{}, nil
	}
	if err != nil {
		return nil, failure(glob.base, err)
	}
	defer unix.Close(root)
	w := walk{
		ctx: ctx, base: glob.base, pseudo: isPseudo(fileSystem(root)),
		enter: glob.canContain,
		visit: func(dir int, name, relative, path string) error {
			if !doublestar.MatchUnvalidated(glob.rest, relative) {
				return nil
			}
			return p.add(dir, name, relative, path)
		},
	}
	if err := w.directory(root, "", 1, p.after()); err != nil && !isPageFull(err) {
		return nil, failure(glob.base, err)
	}
	return &sandpoolv1.GlobFilesResponse{Files: p.files, NextPageToken: p.next()}, nil
}

func parsePattern(text string) (pattern, error) {
	reject := func(why string) (pattern, error) {
		return pattern{}, rpcerror.BadField(reasonPathInvalid, "pattern", "%s, got %q", why, shorten(text))
	}
	switch {
	case !strings.HasPrefix(text, "/"):
		return reject("must be an absolute path")
	case len(text) > maxPathBytes:
		return reject("must have at most 16,384 bytes")
	case strings.ContainsRune(text, 0):
		return reject("must not contain NUL")
	case strings.Count(text, "{") > maxBraces:
		return reject("must not contain more than 8 braces")
	case strings.Count(text, "**") > maxDoubleStars:
		return reject("must not contain ** more than 8 times")
	}
	var parts []string
	for _, part := range strings.Split(text, "/") {
		switch part {
		case "", ".":
		case "..":
			return reject("must not contain ..")
		default:
			parts = append(parts, part)
		}
	}
	clean := strings.Join(parts, "/")
	if !doublestar.ValidatePattern(clean) {
		return reject("must have closed brackets and braces")
	}
	base, rest := doublestar.SplitPattern("/" + clean)
	return pattern{base: path.Clean(base), rest: rest}.split(), nil
}

// split determines the parts that limit the search.
func (p pattern) split() pattern {
	p.exact = true
	for _, part := range strings.Split(p.rest, "/") {
		if strings.Contains(part, "**") || strings.ContainsAny(part, "{}\\") {
			p.exact = false
			break
		}
		p.parts = append(p.parts, part)
	}
	return p
}

// canContain reports whether a directory can contain a match.
func (p pattern) canContain(relative string, level int) bool {
	if level >= maxDepth || p.exact && level >= len(p.parts) {
		return false
	}
	// The parents were checked before, so only the last name must be checked.
	return level > len(p.parts) || doublestar.MatchUnvalidated(p.parts[level-1], path.Base(relative))
}
