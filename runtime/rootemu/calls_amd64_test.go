package rootemu

import (
	"os"
	"os/exec"
	"testing"
)

// calls386Source makes calls by the gate of 32-bit programs, which take addresses of 32 bits, and calls of the
// x32 kind, and returns how many were not as they should be.
const calls386Source = `
static long call(long nr, long a, long b, long c, long d, long e) {
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
	return (int)r;
}
static long wide(long nr, long a, long b, long c) {
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c) : "memory", "rcx", "r11");
	return r;
}
static char a[] = "/tmp/a", b[] = "/tmp/b", n[] = "/tmp/n", name[] = "trusted.x", value[] = "v";
static unsigned three[3];
static unsigned short narrow[3];
int main(void) {
	int bad = 0;
#define is(x, y) if ((x) != (y)) { bad++; __builtin_printf("line %d: %ld\n", __LINE__, (long)(x)); }
	is(call(212, (long)a, 70000, -1, 0, 0), 0)              /* chown32 */
	is(call(182, (long)a, 0xffff, 21, 0, 0), 0)             /* chown, 16 bits: keeps the user */
	is(call(298, -100, (long)b, 5, 6, 0x100), 0)            /* fchownat */
	is(call(16, 0, 1, 1, 0, 0), -14)                        /* lchown of no path */
	is(call(14, (long)n, 0020600, 0x103, 0, 0), 0)          /* mknod */
	is(call(226, (long)a, (long)name, (long)value, 1, 0), 0) /* setxattr */
	is(wide(0x40000000 | 92, (long)a, 9, 9), -38)           /* x32 chown */
	is(call(206, 0, 0, 0, 0, 0), 0)                         /* setgroups32 */
	is(call(210, 70000, 70000, 70000, 0, 0), 0)             /* setresgid32 */
	is(call(164, 33, 34, 35, 0, 0), 0)                      /* setresuid, 16 bits */
	is(call(201, 0, 0, 0, 0, 0), 34)                        /* geteuid32 */
	is(call(47, 0, 0, 0, 0, 0), 65534)                      /* getgid, 16 bits */
	is(call(209, (long)three, (long)(three + 1), (long)(three + 2), 0, 0), 0)
	is(three[2], 35)
	is(call(171, (long)narrow, (long)(narrow + 1), (long)(narrow + 2), 0, 0), 0)
	is(narrow[1], 65534)
	is(call(80, 0, 0, 0, 0, 0), 0)                          /* getgroups */
	return bad;
}
`

func Test386(t *testing.T) {
	needs(t, "gcc")
	c := newContainer(t)
	src := t.TempDir() + "/calls.c"
	must(t, os.WriteFile(src, []byte(calls386Source), 0o644))
	cmd := exec.Command("gcc", "-O0", "-static", "-no-pie", "-o", c.Lower+"/calls386", src)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("needs a C compiler for static programs: %v\n%s", err, out)
	}
	if out, err := c.tryRun(t, "/calls386"); err != nil && out == "" {
		t.Skipf("needs a kernel with 32-bit calls: %v", err)
	}
	if out := c.sh(t, "cd /tmp; rm -f n; touch a b; /calls386"); out != "" {
		t.Error(out)
	}
	c.wantLayer(t, "tmp/ 5 755 0:0", "tmp/a 0 644 70000:21 0 trusted.x=76", "tmp/b 0 644 5:6 0", "tmp/n 3 600 0:0 1,3")
}
