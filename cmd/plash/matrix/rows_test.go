package matrix

import "github.com/ihucos/plash/runtime/hosttest"

// A row is a kind of host, and what works there.
type row struct {
	name string // of the test
	host string // in the table
	kind kind
	want cells
}

// cells are what the columns of a row say.
type cells struct{ run, build, mount, export, backend string }

// wanted is a cell by its column.
func (c cells) wanted(column string) string {
	return map[string]string{
		colRun: c.run, colBuild: c.build, colMount: c.mount, colExport: c.export, colBackend: c.backend,
	}[column]
}

const (
	user = hosttest.User     // has subordinate ids
	bare = hosttest.BareUser // has none
)

// rows are all kinds of hosts. Machines have PRoot, if nothing is said of it.
func rows() []row {
	host := func(h hosttest.Host) kind { return machine{h} }
	all := func(backend string) cells { return cells{works, works, works, works, backend} }
	const (
		refusedNS     = "no: " + noUserNS
		refusedMounts = "no: " + noMounts
	)
	noProot := []string{prootPath}
	return []row{
		{"root", "root", host(hosttest.Host{}), all("erofs")},
		{
			"root-no-erofs", "root, no EROFS", host(hosttest.Host{Without: []string{"erofs"}}),
			all("run: unpack, build: unpack, mount: fuse"),
		},
		{
			"root-no-overlayfs", "root, no overlayfs", host(hosttest.Host{Without: []string{"overlay"}}),
			all("run: union, build: union, mount: erofs"),
		},
		{
			"root-nothing", "root, no EROFS, overlayfs, FUSE", host(hosttest.Host{Without: []string{"erofs", "overlay", "fuse"}}),
			all("run: proot, build: copy, mount: unpack"),
		},
		{"user", "user with subordinate ids", host(hosttest.Host{User: user}), all("fuse")},
		{"user-bare", "user without subordinate ids", host(hosttest.Host{User: bare}), all("fuse")},
		{
			"user-no-fuse", "user, no `/dev/fuse`", host(hosttest.Host{User: user, NoFUSE: true}),
			cells{works, works, refusedMounts, works, "unpack"},
		},
		{
			"user-no-overlayfs", "user, no overlayfs", host(hosttest.Host{User: user, Without: []string{"overlay"}}),
			all("run: union, build: union, mount: fuse"),
		},
		{
			"user-nothing", "user, no overlayfs, no FUSE", host(hosttest.Host{User: user, Without: []string{"overlay", "fuse"}}),
			cells{works, works, refusedMounts, works, "proot"},
		},
		{
			"user-no-userns", "user, no user namespaces, no PRoot",
			host(hosttest.Host{User: user, NoUserNamespaces: true, Missing: noProot}),
			cells{refusedNS, refusedNS, works, works, "fuse"},
		},
		{
			"user-no-userns-proot", "user, no user namespaces", host(hosttest.Host{User: user, NoUserNamespaces: true}),
			all("run: proot, build: proot, mount: fuse"),
		},
		{
			"user-limit", "user, `user.max_user_namespaces=0`, no PRoot",
			host(hosttest.Host{User: user, NoneLeft: true, Missing: noProot}),
			cells{refusedNS, refusedNS, works, works, "fuse"},
		},
		{
			"docker", "`docker run`, no PRoot",
			dockerRun{noProot: true},
			cells{unshared, works, refusedMounts, works, "copy"},
		},
		{"docker-proot", "`docker run`", dockerRun{}, cells{works, works, refusedMounts, works, "run: proot, build: copy"}},
		{
			"docker-user", "`docker run --user UID`, no PRoot",
			dockerRun{as: user, noProot: true},
			cells{refusedNS, refusedNS, refusedMounts, works, "none"},
		},
		{
			"docker-user-proot", "`docker run --user UID`",
			dockerRun{as: user},
			cells{works, works, refusedMounts, works, "proot"},
		},
		{
			"docker-admin", "`docker run --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined`",
			dockerRun{options: []string{"--device=/dev/fuse", "--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined"}},
			all("run: unpack, build: unpack, mount: fuse"),
		},
		{
			"podman", "`podman run` by a user",
			podmanRun{user},
			cells{works, works, refusedMounts, works, "unpack"},
		},
		{"plash", "`plash-run` by root", plashRun{""}, all("erofs")},
		{"plash-user", "`plash-run` by a user", plashRun{user}, cells{works, works, refusedMounts, works, "fuse"}},
	}
}
