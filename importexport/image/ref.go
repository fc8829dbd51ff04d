package image

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A Transport is the way to an image, as skopeo and Podman name it.
type Transport string

const (
	// Anywhere is the transport of a bare NAME[:TAG]: the local engine, else the
	// registry.
	Anywhere      Transport = ""
	Registry      Transport = "docker"         // docker://HOST/NAME:TAG
	Engine        Transport = "docker-daemon"  // docker-daemon:NAME:TAG
	DockerArchive Transport = "docker-archive" // docker-archive:FILE[:NAME:TAG]
	Layout        Transport = "oci"            // oci:DIR[:TAG]
	Archive       Transport = "oci-archive"    // oci-archive:FILE[:TAG]
)

// ErrBadRef is wrapped by the error about what is no reference to an image.
var ErrBadRef = errors.New("not a reference to an image")

// DefaultHost is the registry of names that name none.
const DefaultHost = "docker.io"

// defaultTag is the tag of names that have neither tag nor digest.
const defaultTag = "latest"

// A Ref says where an image is.
type Ref struct {
	Transport Transport
	// Path is the file or directory of an archive or layout.
	Path string
	// Host and Repository are the parts of a name in full: docker.io and
	// library/alpine for alpine. Empty in an archive or layout: whatever image is in it.
	Host, Repository string
	// Tag is the tag of the name; in a layout (oci, oci-archive) all that names an
	// image there, whatever it looks like, and "" any. It may be "" where Digest is set.
	Tag string
	// Digest is that of the manifest (of the config, for an engine that is
	// asked for docker-daemon:sha256:…); "" where the name has none.
	Digest digest.Digest
	// Index is the number of an image in its archive or layout, from 0, as in
	// docker-archive:FILE:@0; -1: it is not given.
	Index int
}

// HasTransport reports whether s begins with the name of a transport.
func HasTransport(s string) bool {
	t, _ := cutTransport(s)
	return t != Anywhere
}

// cutTransport takes the transport from s; it is Anywhere if there is none.
func cutTransport(s string) (Transport, string) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Anywhere, s
	}
	t := Transport(strings.ToLower(name))
	switch t {
	case Registry:
		if after, ok := strings.CutPrefix(rest, "//"); ok {
			return Registry, after
		}
	case Engine, DockerArchive, Layout, Archive:
		return t, rest
	}
	return Anywhere, s
}

// ParseRef reads a reference to an image: NAME[:TAG] or one with a transport, see the
// constants. As in skopeo, the path of an archive or layout ends at its first colon.
// The error wraps [ErrBadRef].
func ParseRef(s string) (Ref, error) {
	r := Ref{Index: -1}
	var rest string
	r.Transport, rest = cutTransport(s)
	var err error
	switch r.Transport {
	case Layout, Archive:
		err = r.parseLayout(rest)
	case DockerArchive:
		err = r.parseArchive(rest)
	case Engine:
		if d := digest.Digest(rest); d.Validate() == nil {
			r.Digest = d
		} else {
			err = r.parseName(rest)
		}
	case Anywhere:
		if name, _, ok := strings.Cut(rest, ":"); ok && foreign(rest, name) {
			err = fmt.Errorf("%w: there are docker://, docker-daemon:, docker-archive:, oci:, oci-archive: but no transport %s", ErrBadRef, name)
			break
		}
		err = r.parseName(rest)
	default:
		err = r.parseName(rest)
	}
	if err != nil {
		return Ref{}, fmt.Errorf("%q: %w", s, err)
	}
	return r, nil
}

// foreign reports whether s, which begins with name and a colon, is meant for a transport
// that there is not here.
func foreign(s, name string) bool {
	return name == "containers-storage" || strings.HasPrefix(s[len(name):], ":/")
}

// parseLayout reads DIR[:TAG].
func (r *Ref) parseLayout(s string) error {
	path, name, named := strings.Cut(s, ":")
	if err := r.setPath(path); err != nil {
		return err
	}
	if strings.HasPrefix(name, "@") {
		return r.parseIndex(name)
	}
	if named && name == "" {
		return fmt.Errorf("%w: nothing follows the colon", ErrBadRef)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c == 0x7f {
			return fmt.Errorf("%w: image name %q", ErrBadRef, name)
		}
	}
	r.Tag = name
	return nil
}

// parseArchive reads FILE[:NAME:TAG].
func (r *Ref) parseArchive(s string) error {
	path, name, named := strings.Cut(s, ":")
	if err := r.setPath(path); err != nil || !named {
		return err
	}
	if strings.HasPrefix(name, "@") {
		return r.parseIndex(name)
	}
	return r.parseName(name)
}

func (r *Ref) setPath(path string) error {
	if path == "" {
		return fmt.Errorf("%w: it has no path", ErrBadRef)
	}
	if strings.ContainsRune(path, 0) {
		return fmt.Errorf("%w: path %q", ErrBadRef, path)
	}
	r.Path = path
	return nil
}

func (r *Ref) parseIndex(s string) error {
	n, err := strconv.ParseUint(s[1:], 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != s[1:] {
		return fmt.Errorf("%w: %q is no number of an image", ErrBadRef, s)
	}
	r.Index = int(n)
	return nil
}

// parseName reads [HOST/]NAME[:TAG][@DIGEST].
func (r *Ref) parseName(s string) error {
	name, sum, pinned := strings.Cut(s, "@")
	if pinned {
		r.Digest = digest.Digest(sum)
		if err := r.Digest.Validate(); err != nil {
			return fmt.Errorf("%w: digest %q: %w", ErrBadRef, sum, err)
		}
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		r.Tag = name[i+1:]
		name = name[:i]
		if !validTag(r.Tag) {
			return fmt.Errorf("%w: tag %q", ErrBadRef, r.Tag)
		}
	} else if !pinned {
		r.Tag = defaultTag
	}
	host, path, ok := strings.Cut(name, "/")
	if !ok || !looksLikeHost(host) {
		host, path = DefaultHost, name
	}
	if host == "index.docker.io" {
		host = DefaultHost
	}
	if !validHost(host) {
		return fmt.Errorf("%w: host %q", ErrBadRef, host)
	}
	if host == DefaultHost && path != "" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	r.Host, r.Repository = host, path
	return checkRepository(path)
}

// looksLikeHost reports whether the first part of a name is a host, as docker tells it.
func looksLikeHost(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:[") || s != strings.ToLower(s)
}

// validHost reports whether s is HOST[:PORT]; an IPv6 address is in brackets.
func validHost(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return false
		}
	}
	if v6, ok := strings.CutPrefix(host, "["); ok {
		v6, ok = strings.CutSuffix(v6, "]")
		return ok && v6 != "" && strings.Trim(v6, "0123456789abcdefABCDEF:") == ""
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !onlyOf(label, isAlnum, "-") {
			return false
		}
	}
	return true
}

// maxName is how long HOST/NAME may be, as docker has it.
const maxName = 255

// checkRepository holds a repository against the grammar of the OCI distribution
// specification, "Pulling manifests".
func checkRepository(s string) error {
	if s == "" {
		return fmt.Errorf("%w: it has no name", ErrBadRef)
	}
	if len(s) > maxName {
		return fmt.Errorf("%w: a name of %d bytes", ErrBadRef, len(s))
	}
	if s != strings.ToLower(s) {
		return fmt.Errorf("%w: name %q: names are in lower case", ErrBadRef, s)
	}
	for part := range strings.SplitSeq(s, "/") {
		if !validPart(part) {
			return fmt.Errorf("%w: name %q", ErrBadRef, s)
		}
	}
	return nil
}

// validPart reports whether s is [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func validPart(s string) bool {
	for {
		n := 0
		for n < len(s) && isAlnum(s[n]) {
			n++
		}
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		rest := strings.TrimLeft(s, "-")
		if len(rest) == len(s) {
			switch {
			case strings.HasPrefix(s, "__"):
				rest = s[2:]
			case s[0] == '.' || s[0] == '_':
				rest = s[1:]
			}
		}
		if len(rest) == len(s) {
			return false
		}
		s = rest
	}
}

// validTag reports whether s is [A-Za-z0-9_][A-Za-z0-9._-]{0,127}.
func validTag(s string) bool {
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && onlyOf(s, isAlnum, "._-")
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func onlyOf(s string, class func(byte) bool, others string) bool {
	for i := range len(s) {
		if !class(s[i]) && strings.IndexByte(others, s[i]) < 0 {
			return false
		}
	}
	return true
}

// Name is the name in full, with tag and digest: docker.io/library/alpine:latest. It is "" where the
// reference has none.
func (r Ref) Name() string {
	if r.Repository == "" {
		return ""
	}
	return r.withTag(r.Host + "/" + r.Repository)
}

// Familiar is the name as people and engines write it: alpine:latest.
func (r Ref) Familiar() string {
	switch {
	case r.Repository == "":
		return string(r.Digest)
	case r.Host != DefaultHost:
		return r.Name()
	}
	short := strings.TrimPrefix(r.Repository, "library/")
	if strings.Contains(short, "/") && short != r.Repository {
		short = r.Repository // library/a/b
	}
	if first, _, ok := strings.Cut(short, "/"); ok && looksLikeHost(first) {
		return r.Name()
	}
	return r.withTag(short)
}

func (r Ref) withTag(name string) string {
	if r.Tag != "" {
		name += ":" + r.Tag
	}
	if r.Digest != "" {
		name += "@" + string(r.Digest)
	}
	return name
}

// String is the reference in the form that [ParseRef] reads.
func (r Ref) String() string {
	var within string
	switch {
	case r.Index >= 0:
		within = "@" + strconv.Itoa(r.Index)
	case r.Transport == Layout || r.Transport == Archive:
		within = r.Tag
	case r.Transport == Engine && r.Repository == "":
		within = string(r.Digest)
	default:
		within = r.Name()
	}
	switch r.Transport {
	case Anywhere:
		return within
	case Registry:
		return "docker://" + within
	case Engine:
		return "docker-daemon:" + within
	}
	if within != "" {
		within = ":" + within
	}
	return string(r.Transport) + ":" + r.Path + within
}
