package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Record is what is known of a container.
type Record struct {
	ID, Parent ID
	Layer      digest.Digest   // of the layer's tar; empty for container 0
	Chain      digest.Digest   // ChainID of all layers, see cas.ChainID
	Depth      int             // number of layers
	Size       int64           // bytes of the layer's tar
	Created    time.Time       // UTC
	Origin     Origin          // how it was made
	Config     json.RawMessage // OCI image config, where it has one
}

// Origin says how a container was made.
type Origin struct {
	Kind string `json:"kind"`           // "import", "build", "create", "add-layer"
	From string `json:"from,omitempty"` // the image's name, the script, …
}

// Packed reports whether plash itself packed the layer, from an upper directory
// or a plain one. Such a tar has no oddities: all directories have entries, and
// no path has two.
func (o Origin) Packed() bool { return o.Kind != "import" }

// recordVersion is the version of a record's form. Fields may be added without
// a new one: who does not know them leaves them be.
const recordVersion = 1

const (
	// RecordFile is the file with a container's record, in its directory. Its time is when the
	// container was used last.
	RecordFile = "record.json"
	// chainFile holds the records of a stretch of ancestors, see stretch.
	chainFile = "chain.json"
	// stretch is how many records one chainFile holds. A container whose depth
	// is a multiple of it repeats there its own record and those below it, so
	// a chain of 1,000 layers is read from some 60 files.
	stretch = 32
)

// storedRecord is a [Record] as record.json has it.
type storedRecord struct {
	Version int             `json:"version"`
	ID      ID              `json:"id"`
	Parent  ID              `json:"parent"`
	Layer   digest.Digest   `json:"layer"`
	Chain   digest.Digest   `json:"chain"`
	Depth   int             `json:"depth"`
	Size    int64           `json:"size"`
	Created time.Time       `json:"created"`
	Origin  Origin          `json:"origin"`
	Config  json.RawMessage `json:"config,omitempty"`
}

// storedChain is a chainFile, the bottom layer first.
type storedChain struct {
	Version int            `json:"version"`
	Records []storedRecord `json:"records"`
}

func (r Record) stored() storedRecord {
	return storedRecord{
		Version: recordVersion, ID: r.ID, Parent: r.Parent, Layer: r.Layer, Chain: r.Chain,
		Depth: r.Depth, Size: r.Size, Created: r.Created, Origin: r.Origin, Config: r.Config,
	}
}

func encodeRecord(r Record) ([]byte, error) {
	b, err := json.Marshal(r.stored())
	if err != nil {
		return nil, fmt.Errorf("container %d: encode record: %w", r.ID, err)
	}
	return append(b, '\n'), nil
}

// decodeRecord reads a record.json that lies at place.
func decodeRecord(b []byte, at place) (Record, error) {
	var sr storedRecord
	if err := json.Unmarshal(b, &sr); err != nil {
		return Record{}, fmt.Errorf("container %s: %w: %w", at.base(), ErrDamaged, err)
	}
	return sr.record(at)
}

// record checks a stored record against where it was found.
func (sr storedRecord) record(at place) (Record, error) {
	damaged := func(what string, expected, found any) (Record, error) {
		return Record{}, fmt.Errorf("container %s: %w: expected %s %v, found %v", at.base(), ErrDamaged, what, expected, found)
	}
	switch {
	case sr.Version < 1:
		return damaged("version", recordVersion, sr.Version)
	case sr.Version > recordVersion:
		return Record{}, fmt.Errorf("container %s: its record has version %d, from a newer plash; this one knows %d", at.base(), sr.Version, recordVersion)
	case sr.ID.String() != at.base():
		return damaged("id", at.base(), sr.ID)
	case sr.Parent.String() != at.parent().base():
		return damaged("parent", at.parent().base(), sr.Parent)
	case sr.Depth != at.depth():
		return damaged("depth", at.depth(), sr.Depth)
	}
	for _, d := range []digest.Digest{sr.Layer, sr.Chain} {
		if err := d.Validate(); err != nil {
			return Record{}, fmt.Errorf("container %s: %w: digest %q: %w", at.base(), ErrDamaged, d, err)
		}
	}
	return Record{
		ID: sr.ID, Parent: sr.Parent, Layer: sr.Layer, Chain: sr.Chain, Depth: sr.Depth,
		Size: sr.Size, Created: sr.Created, Origin: sr.Origin, Config: sr.Config,
	}, nil
}

// Chain returns the records of a container and of all that it stands on, the
// bottom layer first, container 0 left out.
func (s *Store) Chain(id ID) ([]Record, error) {
	if id == 0 {
		return nil, nil
	}
	at, err := s.locate(id)
	if err != nil {
		return nil, err
	}
	chain := make([]Record, 0, at.depth())
	from := place("0")
	dir, err := openPath(unix.AT_FDCWD, s.path(treeDir)+"/0", unix.O_PATH|unix.O_DIRECTORY)
	for _, to := range at.stops() {
		if err != nil {
			break
		}
		var records []Record
		if dir, err = descend(dir, from.to(to)); err == nil {
			records, err = readStretch(dir, from, to)
			chain, from = append(chain, records...), to
		}
	}
	if dir >= 0 {
		err = errors.Join(err, unix.Close(dir))
	}
	if err != nil {
		return nil, notFound(id, err)
	}
	return chain, nil
}

// descend opens the directory at path below dir, and closes dir. It returns -1
// if there is none.
func descend(dir int, path string) (int, error) {
	fd, err := openPath(dir, path, unix.O_PATH|unix.O_DIRECTORY)
	return fd, errors.Join(err, unix.Close(dir))
}

// readStretch returns the records below from down to to, whose directory dir
// is: out of the chainFile that lies there, or one by one.
func readStretch(dir int, from, to place) ([]Record, error) {
	places := to.below(from)
	if to.depth()%stretch == 0 {
		records, err := readChainFile(dir, places)
		// It only repeats what the records say.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
			return records, err
		}
	}
	records := make([]Record, len(places))
	// The directories above dir are reached through "..", which stays true in a
	// tree that is being removed: the whole of it is renamed at once.
	up := ""
	for i, at := range slices.Backward(places) {
		b, err := readPath(dir, up+RecordFile)
		if err != nil {
			return nil, err
		}
		if records[i], err = decodeRecord(b, at); err != nil {
			return nil, err
		}
		up += "../"
	}
	return records, nil
}

// readChainFile reads the chainFile in dir, which must hold the records of places.
func readChainFile(dir int, places []place) ([]Record, error) {
	b, err := readPath(dir, chainFile)
	if err != nil {
		return nil, err
	}
	var sc storedChain
	if err := json.Unmarshal(b, &sc); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", chainFile, ErrDamaged, err)
	}
	if len(sc.Records) != len(places) {
		return nil, fmt.Errorf("%s: %w: expected %d records, found %d", chainFile, ErrDamaged, len(places), len(sc.Records))
	}
	records := make([]Record, len(places))
	for i, at := range places {
		if records[i], err = sc.Records[i].record(at); err != nil {
			return nil, fmt.Errorf("%s: %w", chainFile, err)
		}
	}
	return records, nil
}
