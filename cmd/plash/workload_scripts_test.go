package main

// inPlace goes to a directory of the container itself: /tmp and /home are the host's.
const inPlace = `set -e; mkdir /work; cd /work; export TMPDIR=/work; [ $(stat -c %d /work) = $(stat -c %d /usr) ]
`

const packages = "build-essential git sqlite3 python3 libpython3.11-testsuite"

// downloadScript fetches all that is installed later, so that the network has no part in
// that, and the sources of something to compile.
const downloadScript = `set -e
cd /
sed -n 's/^deb /deb-src /p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null >/etc/apt/sources.list.d/source.list || :
apt-get update
apt-get -y --download-only --no-install-recommends install ` + packages + `
apt-get source --download-only zlib
`

const installScript = `DEBIAN_FRONTEND=noninteractive apt-get -y --no-download --no-install-recommends install ` + packages

// verifyScript compares all files with the packages' checksums.
const verifyScript = `
dpkg --audit
dpkg --verify
apt-get check >/dev/null
ldconfig
[ -z "$(find / -xdev -newermt tomorrow)" ]
DEBIAN_FRONTEND=noninteractive apt-get -y purge sqlite3 >/dev/null
! test -e /usr/bin/sqlite3
DEBIAN_FRONTEND=noninteractive apt-get -y --no-download install sqlite3 >/dev/null
dpkg --verify
echo verified
`

const compileScript = `
dpkg-source -x /zlib*.dsc zlib
cd zlib
./configure
make -j2
make test
`

// recompileScript works on the files of a layer: nothing is to be done at first.
const recompileScript = `
cd /work/zlib
make -q all
touch zlib.h
make -j2 >/dev/null
make test | grep 'test OK'
make install DESTDIR=/work/root >/dev/null
rm -r /work/root
make distclean >/dev/null
echo passed
`

const commitScript = `
git config --global user.name nobody
git config --global user.email nobody@localhost
git config --global advice.detachedHead false
git init -q -b main repository
cd repository
cp -r /usr/include .
git add -A
git commit -qm one
for i in 2 3 4; do
	git mv include/stdio.h include/stdio$i.h
	echo $i >>include/stdlib.h
	git commit -qam $i
	git mv include/stdio$i.h include/stdio.h
done
git commit -qam last
git tag last
`

// gitScript works on a repository that is in a layer, and on clones of it, whose
// objects are hard links.
const gitScript = `
cd /work/repository
[ -z "$(git status --porcelain)" ]
git fsck --full --strict
git clone -q . ../clone
git clone -q --no-local . ../copy
git worktree add -q ../worktree HEAD~2
for d in clone copy worktree repository; do
	cd /work/$d
	[ -z "$(git status --porcelain)" ]
	git checkout -q HEAD~1
	git checkout -q last
	rm -r include/linux
	[ -n "$(git status --porcelain)" ]
	git checkout -q .
	[ -z "$(git status --porcelain)" ]
done
diff -r /work/clone/include /work/copy/include
cd /work/repository
git worktree remove ../worktree
echo more >>include/math.h
git commit -qam more
git gc -q --prune=now
git fsck --full --strict
cd ../clone
git pull -q origin HEAD
[ $(git rev-parse HEAD) = $(git -C ../repository rev-parse HEAD) ]
git fsck --full
[ -z "$(git status --porcelain)" ]
echo clean
`

// sqliteScript has four processes write to one database at once, with a journal and with
// shared memory, while another reads.
const sqliteScript = `
write() {
	n=0
	while [ $n -lt $2 ]; do
		echo "BEGIN IMMEDIATE; INSERT INTO t VALUES($1, $n, randomblob(500)); UPDATE c SET n = n + 1; COMMIT;"
		n=$((n+1))
	done | sqlite3 -bail -cmd '.timeout 60000' base
}
read_all() {
	while ! [ -e done ]; do
		sqlite3 -bail -cmd '.timeout 60000' base 'SELECT (SELECT count(*) FROM t) = (SELECT n FROM c)' >>reads
	done
}
sqlite3 base 'CREATE TABLE t(w, n, b); CREATE INDEX i ON t(w, n); CREATE TABLE c(n); INSERT INTO c VALUES(0)'
for mode in delete wal; do
	sqlite3 base "PRAGMA journal_mode = $mode" >/dev/null
	rm -f done
	read_all & reader=$!
	pids=
	for i in 1 2 3 4; do
		write $i 1000 & pids="$pids $!"
	done
	for p in $pids; do wait $p; done
	touch done
	wait $reader
done
! grep -v 1 reads
sqlite3 base 'VACUUM'
sqlite3 base 'SELECT (SELECT count(*) FROM t), (SELECT n FROM c), (SELECT * FROM pragma_integrity_check)'
`

// pythonScript tells how each test ended, without those that need another machine.
const pythonScript = `
import unittest
class Result(unittest.TestResult):
    def stopTest(self, test):
        bad = {t.id() for t, _ in self.failures + self.errors}
        skipped = {t.id() for t, _ in self.skipped}
        print("RESULT", "failed" if test.id() in bad else "skipped" if test.id() in skipped else "ok", test.id(), flush=True)
names = ["test.test_os", "test.test_shutil", "test.test_tarfile", "test.test_mmap"]
unittest.defaultTestLoader.loadTestsFromNames(names).run(Result())
`
