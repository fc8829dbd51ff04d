// Package registrytest is a registry for tests, in memory: it speaks the OCI distribution
// specification, and fails in the ways in which registries and networks do.
//
// It does not check what is pushed beyond digests, and forgets everything at its end.
package registrytest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A Registry is a registry that is served on the loopback interface.
type Registry struct {
	// Host is its address, as HOST:PORT.
	Host string
	// Faults are what goes wrong. They may be changed while no request is under way.
	Faults Faults
	// User and Password are asked for, if User is not ""; with Tokens a token server does it.
	User, Password string
	Tokens         bool

	server  *httptest.Server
	refused refusals

	mu        sync.Mutex
	repos     map[string]*repository
	uploads   map[string]*upload
	log       []string // method and path of each request
	requests  int
	nextID    int
	generated int // of tokens
	stalled   []net.Conn
}

type repository struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
}

type manifest struct {
	mediaType string
	content   []byte
}

type upload struct {
	repo    string
	content []byte
}

// New serves a registry until the end of the test.
func New(t testing.TB) *Registry {
	r := &Registry{repos: map[string]*repository{}, uploads: map[string]*upload{}}
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	t.Cleanup(func() {
		r.server.Close()
		for _, c := range r.stalled {
			c.Close()
		}
	})
	return r
}

// stall keeps a connection and does nothing with it.
func (r *Registry) stall(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stalled = append(r.stalled, c)
}

// Stop has the registry answer no more.
func (r *Registry) Stop() { r.server.Close() }

// Log returns method and path of each request so far.
func (r *Registry) Log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.log...)
}

// ClearLog forgets the requests so far.
func (r *Registry) ClearLog() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

// Requests counts the requests so far that begin with method and whose path holds part.
func (r *Registry) Requests(method, part string) int {
	n := 0
	for _, line := range r.Log() {
		if m, path, _ := strings.Cut(line, " "); m == method && strings.Contains(path, part) {
			n++
		}
	}
	return n
}

// PutBlob stores a blob, and PutManifest a manifest under its digest and, if it is not
// "", a tag.
func (r *Registry) PutBlob(repo string, content []byte) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.FromBytes(content)
	r.repo(repo).blobs[d] = content
	return d
}

// PutManifest stores a manifest.
func (r *Registry) PutManifest(repo, tag, mediaType string, content []byte) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.FromBytes(content)
	r.repo(repo).manifests[d] = manifest{mediaType, content}
	if tag != "" {
		r.repo(repo).tags[tag] = d
	}
	return d
}

// Manifest returns the manifest that a tag or digest stands for, nil if there is none.
func (r *Registry) Manifest(repo, name string) (content []byte, mediaType string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.find(repo, name)
	return m.content, m.mediaType
}

// Blob returns a blob, nil if there is none.
func (r *Registry) Blob(repo string, d digest.Digest) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.repo(repo).blobs[d]
}

// Tags returns the tags of a repository.
func (r *Registry) Tags(repo string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var tags []string
	for t := range r.repo(repo).tags {
		tags = append(tags, t)
	}
	return tags
}

// repo returns a repository, which is made by its first use. The caller holds the lock.
func (r *Registry) repo(name string) *repository {
	if r.repos[name] == nil {
		r.repos[name] = &repository{map[digest.Digest][]byte{}, map[digest.Digest]manifest{}, map[string]digest.Digest{}}
	}
	return r.repos[name]
}

func (r *Registry) find(repo, name string) manifest {
	d := digest.Digest(name)
	if d.Validate() != nil {
		d = r.repo(repo).tags[name]
	}
	return r.repo(repo).manifests[d]
}

var apiPath = regexp.MustCompile(`^/v2/(.+)/(blobs|manifests|blobs/uploads)/([^/]*)$`)

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.log = append(r.log, req.Method+" "+req.URL.RequestURI())
	r.requests++
	n := r.requests
	if every := r.Faults.ExpireEvery; every > 0 && n%every == 0 {
		r.generated++
	}
	r.mu.Unlock()
	if req.URL.Path == "/token" {
		r.token(w, req)
		return
	}
	if r.Faults.refuse(w, req, n, &r.refused) || !r.authorised(w, req) {
		return
	}
	if req.URL.Path == "/v2/" {
		return
	}
	m := apiPath.FindStringSubmatch(req.URL.Path)
	if m == nil {
		refuse(w, http.StatusNotFound, "NAME_INVALID", "no such path")
		return
	}
	repo, rest := m[1], m[3]
	switch {
	case strings.HasSuffix(repo, "/blobs") || m[2] == "blobs/uploads":
		r.serveUpload(w, req, strings.TrimSuffix(repo, "/blobs"), rest)
	case m[2] == "blobs":
		r.serveBlob(w, req, repo, digest.Digest(rest))
	default:
		r.serveManifest(w, req, repo, rest)
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// authorised lets those through who have said the password, or have a token.
func (r *Registry) authorised(w http.ResponseWriter, req *http.Request) bool {
	if r.User == "" {
		return true
	}
	if r.Tokens {
		r.mu.Lock()
		good := req.Header.Get("Authorization") == fmt.Sprintf("Bearer token-%d", r.generated)
		r.mu.Unlock()
		if good {
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
	} else {
		user, password, _ := req.BasicAuth()
		if user == r.User && password == r.Password {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	}
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	user, password, _ := req.BasicAuth()
	if user != r.User || password != r.Password {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "wrong password")
		return
	}
	r.mu.Lock()
	if r.generated == 0 {
		r.generated = 1
	}
	n := r.generated
	r.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{"token": fmt.Sprintf("token-%d", n), "expires_in": 300})
}

// ExpireTokens makes all tokens so far worthless.
func (r *Registry) ExpireTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generated++
}

func (r *Registry) serveManifest(w http.ResponseWriter, req *http.Request, repo, name string) {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		r.mu.Lock()
		m := r.find(repo, name)
		r.mu.Unlock()
		if m.content == nil {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		said := digest.FromBytes(m.content)
		if r.Faults.WrongManifestDigest {
			said = digest.FromString("something else")
		}
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", said.String())
		w.Header().Set("Content-Length", strconv.Itoa(len(m.content)))
		if take(&r.Faults.CutManifests) {
			abort(w, m.content[:len(m.content)/2])
		}
		_, _ = w.Write(m.content)
	case http.MethodPut:
		content, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		tag := name
		if digest.Digest(name).Validate() == nil {
			tag = ""
		}
		d := r.PutManifest(repo, tag, req.Header.Get("Content-Type"), content)
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, repo string, d digest.Digest) {
	content := r.Blob(repo, d)
	if content == nil || r.Faults.LoseLayers && len(content) > 1000 {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	from := 0
	if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err == nil && !r.Faults.NoRanges {
		if from >= len(content) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		w.Header().Set("Content-Length", strconv.Itoa(len(content)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		from = 0
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	}
	if req.Method == http.MethodHead {
		return
	}
	content = r.Faults.spoil(content)[from:]
	if cut := r.Faults.CutEvery; cut > 0 && len(content) > cut {
		abort(w, content[:cut])
	}
	_, _ = w.Write(content)
}

// abort sends what there is and closes the connection.
func abort(w http.ResponseWriter, content []byte) {
	_, _ = w.Write(content)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// serveUpload takes blobs in pieces (OCI distribution specification, "Pushing Blobs").
func (r *Registry) serveUpload(w http.ResponseWriter, req *http.Request, repo, id string) {
	if req.Method == http.MethodPost {
		r.beginUpload(w, req, repo)
		return
	}
	r.mu.Lock()
	u := r.uploads[id]
	r.mu.Unlock()
	if u == nil || u.repo != repo {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
		return
	}
	switch req.Method {
	case http.MethodGet:
		if r.Faults.Forget {
			refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
			return
		}
		r.describe(w, u, id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch, http.MethodPut:
		if req.ContentLength > 0 && take(&r.Faults.StallUploads) {
			r.stall(w)
			return
		}
		if !r.take(w, req, u) {
			return
		}
		if req.Method == http.MethodPut {
			r.finish(w, u, id, req.URL.Query())
			return
		}
		r.describe(w, u, id)
		w.WriteHeader(http.StatusAccepted)
	case http.MethodDelete:
		r.mu.Lock()
		delete(r.uploads, id)
		r.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}
}

func (r *Registry) beginUpload(w http.ResponseWriter, req *http.Request, repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.Digest(req.URL.Query().Get("mount"))
	if from := req.URL.Query().Get("from"); from != "" && !r.Faults.NoMounts {
		if content := r.repo(from).blobs[d]; content != nil {
			r.repo(repo).blobs[d] = content
			w.WriteHeader(http.StatusCreated)
			return
		}
	}
	r.nextID++
	id := strconv.Itoa(r.nextID)
	r.uploads[id] = &upload{repo: repo}
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=x")
	w.WriteHeader(http.StatusAccepted)
}

func (r *Registry) describe(w http.ResponseWriter, u *upload, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Header().Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+id+"?state=x")
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(u.content)-1, 0)))
}

// take appends what a request brings to the upload, as far as the connection holds.
func (r *Registry) take(w http.ResponseWriter, req *http.Request, u *upload) bool {
	r.mu.Lock()
	have := len(u.content)
	r.mu.Unlock()
	var from int
	if _, err := fmt.Sscanf(req.Header.Get("Content-Range"), "%d-", &from); err == nil && from != have {
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(have-1, 0)))
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return false
	}
	body := io.Reader(req.Body)
	cut := r.Faults.CutEvery
	if req.ContentLength > 1 && take(&r.Faults.CutUploads) {
		cut = int(req.ContentLength / 2)
	}
	if cut > 0 {
		body = io.LimitReader(body, int64(cut))
	}
	piece, err := io.ReadAll(body)
	r.mu.Lock()
	u.content = append(u.content, piece...)
	if r.Faults.Mangle && len(piece) > 0 {
		u.content[0] ^= 1
	}
	r.mu.Unlock()
	if err != nil || cut > 0 && len(piece) == cut {
		panic(http.ErrAbortHandler)
	}
	return true
}

func (r *Registry) finish(w http.ResponseWriter, u *upload, id string, query url.Values) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.FromBytes(u.content)
	if want := query.Get("digest"); want != d.String() {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "expected "+want+", found "+d.String())
		return
	}
	r.repo(u.repo).blobs[d] = u.content
	delete(r.uploads, id)
	if take(&r.Faults.LoseCommits) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}
