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

// Of each the time to match a name can grow with the power.
const (
	maxBraces  = 8
	maxFolders = 8
)

// pattern is a glob, split into the folder that its search begins in and the rest.
type pattern struct {
	base string
	rest string
	// parts are those of the rest that each stand for the folder at their level, up to the first that may stand for
	// several.
	parts []string
	// exact is whether parts are all there are: nothing deeper can match.
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
		enter: glob.mayHold,
		visit: func(dir int, name, relative, path string) error {
			if !doublestar.MatchUnvalidated(glob.rest, relative) {
				return nil
			}
			return p.add(dir, name, relative, path)
		},
	}
	if err := w.folder(root, "", 1, p.after()); err != nil && !isPageFull(err) {
		return nil, failure(glob.base, err)
	}
	return &sandpoolv1.GlobFilesResponse{Files: p.files, NextPageToken: p.next()}, nil
}

func parsePattern(text string) (pattern, error) {
	refuse := func(why string) (pattern, error) {
		return pattern{}, rpcerror.BadField(reasonPathInvalid, "pattern", "%s", why)
	}
	switch {
	case !strings.HasPrefix(text, "/"):
		return refuse("must be an absolute path")
	case len(text) > maxPathBytes:
		return refuse("too long")
	case strings.ContainsRune(text, 0):
		return refuse("has a NUL in it")
	case strings.Count(text, "{") > maxBraces:
		return refuse("has more than 8 braces")
	case strings.Count(text, "**") > maxFolders:
		return refuse("has more than 8 times **")
	}
	var parts []string
	for _, part := range strings.Split(text, "/") {
		switch part {
		case "", ".":
		case "..":
			return refuse("has .. in it")
		default:
			parts = append(parts, part)
		}
	}
	clean := strings.Join(parts, "/")
	if !doublestar.ValidatePattern(clean) {
		return refuse("is malformed: see that brackets and braces are closed")
	}
	base, rest := doublestar.SplitPattern("/" + clean)
	return pattern{base: path.Clean(base), rest: rest}.split(), nil
}

// split finds the parts that narrow the search.
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

// mayHold is whether something that matches can lie in a folder.
func (p pattern) mayHold(relative string, level int) bool {
	if level >= maxDepth || p.exact && level >= len(p.parts) {
		return false
	}
	// What is above was asked the same, so the last name decides.
	return level > len(p.parts) || doublestar.MatchUnvalidated(p.parts[level-1], path.Base(relative))
}
