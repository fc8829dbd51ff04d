// Package imageserver is a small image server over real HTTP, for tests and the
// demonstration: it serves root filesystems in the simplestreams layout that
// LXC, Incus and LXD know, on a port of this machine, and can be told to
// misbehave. It also makes the root filesystems: [BusyboxRoot], [DebianRoot].
//
// It is no server for others: it has neither TLS nor limits, and what it serves
// lies in memory or in files that must not change meanwhile.
package imageserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	goruntime "runtime"
	"strings"
	"sync"
	"time"
)

// Image is a root filesystem to be served. Dist, Release and either Data or
// File must be given.
type Image struct {
	Dist, Release string
	Title         string // of the release; "": Release
	Arch          string // as image servers name it; "": this machine's
	Variant       string // "": default
	Version       string // "": 20240601_13:00
	Aliases       string // comma-separated; "": DIST/RELEASE and DIST/RELEASE/VARIANT

	Data []byte // the tar, compressed as Item says, or
	File string // the file that holds it
	Item string // file name and type; "": root.tar.xz
}

// Version0 is the version of images that name none.
const Version0 = "20240601_13:00"

// modified is the modification time of all that is served.
var modified = time.Date(2024, time.June, 1, 13, 0, 0, 0, time.UTC)

// Request is one that was answered, or at least begun to be.
type Request struct {
	Path      string
	Range     string
	UserAgent string
}

// Server is a running image server. Its methods may be used while it serves.
type Server struct {
	url  string
	http *http.Server
	done chan struct{}

	mu       sync.Mutex
	files    map[string]*file
	images   []Image
	faults   Faults
	answered int // requests that counted against faults.Status
	requests []Request
}

// file is something served: data, or the content of a file on disk.
type file struct {
	data   []byte
	path   string
	size   int64
	sha256 string
}

// New starts a server for images on a free port of 127.0.0.1.
func New(images ...Image) (*Server, error) { return Listen("127.0.0.1:0", images...) }

// Listen starts a server for images at address, as net.Listen takes it.
func Listen(address string, images ...Image) (*Server, error) {
	s := &Server{files: map[string]*file{}, done: make(chan struct{})}
	if err := s.Add(images...); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("image server: %w", err)
	}
	s.url = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // ends with Close
	}()
	return s, nil
}

// URL is the server's base, what PLASH_LXC_SERVER is set to.
func (s *Server) URL() string { return s.url }

// Close ends the server and all connections.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// SetFaults lets the server misbehave from now on, or no more.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.answered = f, 0
}

// Requests returns the requests since the last call.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests
	s.requests = nil
	return r
}

// AddFile serves data under a path, which may be that of an index.
func (s *Server) AddFile(name string, data []byte) {
	sum := sha256.Sum256(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path.Join("/", name)] = &file{data: data, size: int64(len(data)), sha256: hex.EncodeToString(sum[:])}
}

// Remove serves nothing under a path any more.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, path.Join("/", name))
}

// Add serves more images and writes the indexes anew.
func (s *Server) Add(images ...Image) error {
	for _, im := range images {
		im.setDefaults()
		f := &file{data: im.Data, path: im.File, size: int64(len(im.Data))}
		if err := f.hash(); err != nil {
			return fmt.Errorf("image server: %w", err)
		}
		s.mu.Lock()
		s.files["/"+im.path()] = f
		s.images = append(s.images, im)
		s.mu.Unlock()
	}
	return s.writeIndexes()
}

func (im *Image) setDefaults() {
	for field, value := range map[*string]string{
		&im.Title: im.Release, &im.Arch: Arch(), &im.Variant: "default", &im.Version: Version0, &im.Item: "root.tar.xz",
	} {
		if *field == "" {
			*field = value
		}
	}
	if im.Aliases == "" {
		im.Aliases = im.Dist + "/" + im.Release + "/" + im.Variant
		if im.Variant == "default" {
			im.Aliases += "," + im.Dist + "/" + im.Release
		}
	}
}

// Arch is this machine's architecture as image servers name it.
func Arch() string {
	switch goruntime.GOARCH {
	case "arm":
		return "armhf"
	case "386":
		return "i386"
	case "ppc64le":
		return "ppc64el"
	}
	return goruntime.GOARCH
}

// path is where the image's file is served.
func (im *Image) path() string {
	return path.Join("images", im.Dist, im.Release, im.Arch, im.Variant, im.Version, im.Item)
}

func (f *file) open() (io.ReadSeekCloser, error) {
	if f.path == "" {
		return struct {
			*bytes.Reader
			io.Closer
		}{bytes.NewReader(f.data), io.NopCloser(nil)}, nil
	}
	return os.Open(f.path)
}

func (f *file) hash() (err error) {
	r, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h := sha256.New()
	if f.size, err = io.Copy(h, r); err != nil {
		return err
	}
	f.sha256 = hex.EncodeToString(h.Sum(nil))
	return nil
}

// object is a JSON object.
type object = map[string]any

// writeIndexes makes index.json and images.json of the images.
func (s *Server) writeIndexes() error {
	s.mu.Lock()
	products, names := object{}, []string{}
	for _, im := range s.images {
		key := strings.Join([]string{im.Dist, im.Release, im.Arch, im.Variant}, ":")
		product, ok := products[key].(object)
		if !ok {
			product = object{
				"aliases": im.Aliases, "arch": im.Arch, "os": im.Dist, "release": im.Release,
				"release_title": im.Title, "variant": im.Variant, "versions": object{},
			}
			products[key] = product
			names = append(names, key)
		}
		f := s.files["/"+im.path()]
		product["versions"].(object)[im.Version] = object{"items": object{
			im.Item: object{"ftype": im.Item, "path": im.path(), "sha256": f.sha256, "size": f.size},
			// What else servers have: it must be passed over.
			"root.squashfs": object{"ftype": "squashfs", "path": im.path() + ".squashfs", "sha256": f.sha256, "size": 1},
		}}
	}
	s.mu.Unlock()
	list, err := json.Marshal(object{
		"content_id": "images", "datatype": "image-downloads", "format": "products:1.0", "products": products,
	})
	if err != nil {
		return fmt.Errorf("image server: %w", err)
	}
	index, err := json.Marshal(object{"format": "index:1.0", "index": object{"images": object{
		"datatype": "image-downloads", "format": "products:1.0", "path": "streams/v1/images.json", "products": names,
	}}})
	if err != nil {
		return fmt.Errorf("image server: %w", err)
	}
	s.AddFile("streams/v1/images.json", list)
	s.AddFile("streams/v1/index.json", index)
	return nil
}

// Served is what a server has under a path.
type Served struct {
	Size   int64
	SHA256 string
}

// Files returns what is served, by path.
func (s *Server) Files() map[string]Served {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]Served{}
	for name, f := range s.files {
		all[name] = Served{f.size, f.sha256}
	}
	return all
}
