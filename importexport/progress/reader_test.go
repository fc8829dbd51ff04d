package progress

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFileProgress(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, largeWork); err != nil {
		t.Fatal(err)
	}
	const whole = "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%|100%]\n" + extracting
	for _, test := range []struct {
		name string
		file string // "": a pipe
		size int64  // how much of it is there
		slow bool
		want string
	}{
		{"large file", large, largeWork, false, whole},
		{"end of a large file", large, 1000, false, ""},
		{"slow file", large, 1000, true, whole},
		{"small pipe", "", 1000, false, ""},
		{"slow pipe", "", 1000, true, "[0MB|done]\n" + extracting},
		{"large pipe", "", largeWork + 1, false, "[0MB|10MB|20MB|30MB|40MB|50MB|60MB|done]\n" + extracting},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			r := io.LimitReader(zeros{}, test.size)
			if test.file != "" {
				f, err := os.Open(test.file)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.Seek(-test.size, io.SeekEnd); err != nil {
					t.Fatal(err)
				}
				r = f
			}
			f := NewReader(r, NewPlain(&out))
			if test.slow {
				f.meter.late.Store(true)
			}
			n, err := io.CopyBuffer(io.Discard, f, make([]byte, 1<<20))
			f.Close()
			if n != test.size || err != nil || out.String() != test.want {
				t.Errorf("%d bytes of %d, %v, printed %q, want %q", n, test.size, err, &out, test.want)
			}
		})
	}
}

// A file that is read once more is shown once more, and a pipe cannot be.
func TestFileProgressAgain(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, largeWork)); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(large)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out bytes.Buffer
	f := NewReader(file, NewPlain(&out))
	for range 2 {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, f); n != largeWork || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	f.Close()
	if n := strings.Count(out.String(), "100%]"); n != 2 {
		t.Errorf("printed %q", &out)
	}
	if _, err := NewReader(io.LimitReader(file, 1), NewPlain(&out)).Seek(0, io.SeekStart); err == nil {
		t.Error("what cannot be read again was")
	}
}

// What breaks off leaves the cursor at the beginning of a line.
func TestFileProgressCutOff(t *testing.T) {
	var out bytes.Buffer
	f := NewReader(strings.NewReader("x"), NewPlain(&out))
	f.meter.late.Store(true)
	if _, err := f.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if out.String() != "[0MB\n" {
		t.Errorf("printed %q", &out)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
