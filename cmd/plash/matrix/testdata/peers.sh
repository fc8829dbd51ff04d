#!/bin/sh
# Runs `true` in another root filesystem by programs that are not plash, and prints lines as
# probe.sh does. BUSYBOX is a tar with the root filesystem.
tmp=$(mktemp -d)
mkdir "$tmp/root" "$tmp/run"
tar -x -C "$tmp/root" --exclude './dev/*' -f "$BUSYBOX"
mkdir -p "$tmp/root/dev" "$tmp/root/proc" "$tmp/root/sys" "$tmp/root/tmp" "$tmp/root/home"
: >>"$tmp/root/etc/hosts"
: >>"$tmp/root/etc/resolv.conf"
export XDG_RUNTIME_DIR="$tmp/run"
chmod 700 "$tmp/run"

try() {
	key=$1
	shift
	command -v "$1" >/dev/null || {
		printf '%s\t127\t0\t\tnot installed\n' "$key"
		return
	}
	begin=$(date +%s%N)
	timeout 20 "$@" >"$tmp/out" 2>&1 </dev/null
	code=$?
	end=$(date +%s%N)
	printf '%s\t%s\t%s\t\t%s\n' "$key" "$code" "$(((end - begin) / 1000000))" "$(tail -n 1 "$tmp/out" | tr '\t' ' ')"
}

try bwrap bwrap --bind "$tmp/root" / --dev-bind /dev /dev --bind /proc /proc true
try podman podman --root "$tmp/storage" --runroot "$tmp/run/containers" --tmpdir "$tmp/run/libpod" \
	--runtime crun --cgroup-manager cgroupfs --events-backend file \
	run --rm --network host --cgroups disabled --rootfs "$tmp/root" true
try charliecloud ch-run "$tmp/root" -- true
try proot proot -r "$tmp/root" true
podman unshare rm -rf "$tmp" 2>/dev/null || rm -rf "$tmp" 2>/dev/null
exit 0
