package registrytest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Real says how to run the registry that Debian has (the package docker-registry).
type Real struct {
	// Password has it ask for the user "me" with the password "secret".
	Password bool
	// TLS has it speak TLS, with the certificate of an authority of the test's own.
	TLS bool
}

// secret is "secret", as htpasswd -B has it.
const secret = "$2y$05$x5/s9Ba9DX.SyzN/zGHhnOidyliGcTZ3IeCo/kDRBZH7Ohh8Jyjsm"

// Start runs Debian's registry until the end of the test, which is skipped where there is
// none. It returns its address, and the file of the authority's certificate.
func (o Real) Start(t testing.TB) (host, authority string) {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("no docker-registry here (Debian package docker-registry)")
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: info, formatter: text}\nstorage: {filesystem: {rootdirectory: %q}}\n", dir+"/data")
	if o.Password {
		writeFile(t, dir+"/htpasswd", "me:"+secret+"\n")
		config += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", dir+"/htpasswd")
	}
	config += "http:\n  addr: 127.0.0.1:0\n"
	if o.TLS {
		certify(t, dir)
		config += fmt.Sprintf("  tls: {certificate: %q, key: %q}\n", dir+"/cert.pem", dir+"/key.pem")
	}
	writeFile(t, dir+"/config.yml", config)
	cmd := exec.Command(program, "serve", dir+"/config.yml")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// It would take variables that begin with REGISTRY_ for parts of its configuration.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	var said strings.Builder
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			host = m[1]
			break
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, log)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		_ = cmd.Wait()
	})
	if host == "" {
		t.Fatalf("docker-registry does not listen:\n%s", said.String())
	}
	return host, filepath.Join(dir, "ca.pem")
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certify makes an authority and a certificate of its for the loopback interface.
func certify(t testing.TB, dir string) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	write := func(name, kind string, der []byte) {
		writeFile(t, filepath.Join(dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plash test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey, key := newKey(), newKey()
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", der)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey); err != nil {
		t.Fatal(err)
	}
	write("cert.pem", "CERTIFICATE", der)
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		t.Fatal(err)
	}
	write("key.pem", "PRIVATE KEY", der)
}
