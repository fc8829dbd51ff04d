package registry

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
)

// TestDebianRegistry speaks with a registry that others have written.
func TestDebianRegistry(t *testing.T) {
	layers := [][]byte{layerTar(t, "a", 3_000_000), layerTar(t, "b", 10), layerTar(t, "c", 500_000)}
	for name, o := range map[string]registrytest.Real{
		"plain": {}, "password": {Password: true}, "TLS": {TLS: true}, "password and TLS": {Password: true, TLS: true},
	} {
		t.Run(name, func(t *testing.T) {
			host, authority := o.Start(t)
			c := newClient(t)
			c.settings.certs = t.TempDir()
			st := newStore(t)
			if o.TLS {
				_, err := c.Push(t.Context(), parse(t, "%s/x:1", host), storeImage(t, layers...), PushOptions{Store: st})
				if err == nil || !strings.Contains(err.Error(), "certificate") {
					t.Fatalf("with an unknown authority: %v", err)
				}
				c = sameClient(t)
				c.settings.certs = certificates(t, host, authority)
			}
			if o.Password {
				_, err := c.Push(t.Context(), parse(t, "%s/x:1", host), storeImage(t, layers...), PushOptions{Store: st})
				if !errors.Is(err, ErrDenied) {
					t.Fatalf("without a password: %v", err)
				}
				writeCredentials(t, host, "me", "wrong")
				if _, err = c.Pull(t.Context(), parse(t, "%s/x:1", host), PullOptions{}); !errors.Is(err, ErrDenied) {
					t.Fatalf("with a wrong password: %v", err)
				}
				writeCredentials(t, host, "me", "secret")
			}
			for _, how := range []Compression{"", Zstd, None} {
				d := push(t, c, host+"/some/image:1", storeImage(t, layers...), PushOptions{Store: st, Compression: how})
				if im := pulled(t, c, host+"/some/image:1", layers...); digest.FromBytes(im.Manifest) != d {
					t.Errorf("%q: pushed %s", how, d)
				}
			}
			first := push(t, c, host+"/other:1", storeImage(t, layers...), PushOptions{Store: st, Compression: Gzip}) // mounted
			if d := push(t, c, host+"/some/image:2", storeImage(t, layers...), PushOptions{Store: st, Compression: Gzip}); d != first {
				t.Errorf("%s and %s", first, d)
			}
			pulled(t, c, host+"/other:1", layers...)
			if _, err := c.Pull(t.Context(), parse(t, "%s/some/image:3", host), PullOptions{}); !errors.Is(err, image.ErrNotFound) {
				t.Errorf("of an image that is not there: %v", err)
			}
		})
	}
}

// certificates is a directory as /etc/docker/certs.d.
func certificates(t *testing.T, host, authority string) string {
	t.Helper()
	dir := t.TempDir()
	b, err := os.ReadFile(authority)
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, host), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, host, "ca.crt"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDebianRegistryCutOff has connections to it break after some megabytes, now and then.
func TestDebianRegistryCutOff(t *testing.T) {
	host, _ := registrytest.Real{}.Start(t)
	layers := [][]byte{layerTar(t, "a", 12_000_000), layerTar(t, "b", 3_000_000)}
	proxy := cutter(t, host, 5_000_000, 4)
	c := newClient(t)
	push(t, c, proxy+"/x:1", storeImage(t, layers...), PushOptions{Store: newStore(t)})
	pulled(t, c, cutter(t, host, 5_000_000, 1000)+"/x:1", layers...)
}

// cutter is a way to a server that breaks the first connections after so many bytes.
func cutter(t *testing.T, to string, after int64, times int32) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	left := atomic.Int32{}
	left.Store(times)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				limit := int64(1 << 40)
				if left.Add(-1) >= 0 {
					limit = after
				}
				done := make(chan struct{}, 2)
				pipe := func(dst, src net.Conn) {
					_, _ = io.CopyN(dst, src, limit)
					done <- struct{}{}
				}
				go pipe(out, in)
				go pipe(in, out)
				<-done
			}()
		}
	}()
	return l.Addr().String()
}
