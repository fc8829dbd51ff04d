package roundtrip

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ihucos/plash/importexport/enginetest"
)

// dockerfile makes layers in the ways of other programs: with empty ones, and those that only
// change the configuration.
const dockerfile = `ARG BASE
FROM $BASE
ENV GREETING="hello, world" EMPTY=
LABEL org.example.made="by others" other=Ω
RUN rm -rf /srv && mkdir /srv
COPY --chown=12:34 steps /steps/
RUN sh -eu /steps/1.sh
RUN true
RUN sh -eu /steps/2.sh
RUN sh -eu /steps/3.sh
EXPOSE 80/tcp
WORKDIR /work/dir
USER 1234:5678
STOPSIGNAL SIGUSR1
ENTRYPOINT ["/srv/entry"]
CMD ["x", "y z"]
`

// context is a directory to build an image from.
func context(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644)
	if err == nil {
		err = os.CopyFS(filepath.Join(dir, "steps"), os.DirFS("testdata/steps"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// builtByDocker has Docker build an image on ours.
func (w *world) builtByDocker(t *testing.T) {
	t.Helper()
	build := w.docker.Command("build", "--quiet", "--network=none", "--build-arg=BASE="+imageName, "--tag=built:1", context(t))
	build.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	must(t, build)
	w.isTheSame(t, "built:1", "docker-daemon:built:1", w.docker.Host())
}

// builtByBuildah has Buildah do so.
func (w *world) builtByBuildah(t *testing.T, p *enginetest.Podman, podman string) {
	t.Helper()
	const name = "localhost/built-by-buildah:1"
	must(t, p.Buildah("build", "--quiet", "--isolation=chroot", "--network=host", "--layers", "--cap-add=CAP_MKNOD",
		"--build-arg=BASE=docker.io/library/"+imageName, "--tag="+name, context(t)))
	archive := filepath.Join(t.TempDir(), "docker.tar")
	must(t, p.Buildah("push", "--quiet", name, "docker-archive:"+archive+":"+name))
	must(t, w.docker.Command("load", "--quiet", "--input", archive))
	for _, ref := range []string{"docker-archive:" + archive, "docker-daemon:" + name} {
		w.isTheSame(t, name, ref, podman)
	}
}

// isTheSame holds an image that others have built, as plash imports it, against the one
// of that name that Docker runs. Its configuration stays as it is.
func (w *world) isTheSame(t *testing.T, name, ref, engine string) {
	t.Helper()
	m := newMachine(t, "DOCKER_HOST="+engine)
	id := m.must(t, "plash-import-docker", ref)
	// A working directory that is not there is made by who runs it.
	want := treeFrom(t, dockerRun(w.docker, append([]string{"--user=0", "--workdir=/", name, "exec"}, inside()...)...))
	want.same(t, m.tree(t, id), running)
	const says = `id -u; id -g; pwd; echo "$GREETING"`
	if got := m.must(t, "plash-runc", id, "--", "exec", "sh", "-c", says); got != "1234\n5678\n/work/dir\nhello, world" {
		t.Errorf("%s: plash-runc: %q", ref, got)
	}
	if got := m.must(t, "plash-runc", id); got != "entry x y z" {
		t.Errorf("%s: plash-runc: %q", ref, got)
	}
	back := "oci:" + filepath.Join(m.dir, "back") + ":1"
	m.must(t, "plash-export-docker", id, back)
	if engine == w.docker.Host() {
		if was, is := w.raw(t, m, ref, "--config"), w.raw(t, m, back, "--config"); was != is {
			t.Errorf("%s: the configuration was %s\nand is %s", ref, was, is)
		}
	}
}
