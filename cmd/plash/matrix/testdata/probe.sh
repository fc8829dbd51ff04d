#!/bin/sh
# Does with plash what people do, on whatever host this runs on, and prints what became of it:
# a line for each thing, with the key, the exit code, milliseconds, what was printed and
# what was said about errors, separated by tabs.
#
# ROOM is a directory for this alone, with the program plash in it. IMAGE is a tar of Debian,
# PACKAGE a small package that has a program of its name, PORT where someone on 127.0.0.1
# waits for guests, RUNS and KILLS how often to run, all at once, and to kill, CROWD the tar of an image
# for that where it is not the same one, TOKEN a number for sleeping that no one else takes.
tmp=$(mktemp -d)
plash=$ROOM/plash

line() { tr '\n\t' '  ' | sed 's/ *$//'; }

# try KEY COMMAND…: runs a command and prints its line. What it printed is left in $out.
try() {
	key=$1
	shift
	begin=$(date +%s%N)
	"$@" >"$tmp/out" 2>"$tmp/err" </dev/null
	code=$?
	end=$(date +%s%N)
	out=$(line <"$tmp/out")
	said=
	# Programs that plash runs say more than it does.
	[ $code = 0 ] || said=$(grep -a -E '^(plash|hint)' "$tmp/err" | line)
	[ $code = 0 ] || [ -n "$said" ] || said=$(grep -a . "$tmp/err" | tail -n 2 | line)
	printf '%s\t%s\t%s\t%s\t%s\n' "$key" "$code" "$(((end - begin) / 1000000))" "$out" "$said"
}

# passed: whether a signal to plash reaches the command.
passed() {
	"$plash" run "$id" sh -c 'trap "exit 41" USR1; echo ready; for i in $(seq 200); do sleep 0.05; done' >"$tmp/ready" 2>&1 &
	pid=$!
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		[ ! -s "$tmp/ready" ] || break
		sleep 0.2
	done
	cat "$tmp/ready" >&2
	kill -USR1 $pid
	wait $pid
}

mounted() {
	mkdir -p "$tmp/mnt"
	"$plash" mount "$id" "$tmp/mnt" || return
	cat "$tmp/mnt/etc/debian_version"
	"$plash" umount "$tmp/mnt"
}

exported() {
	{ "$plash" export-tar "$id" - || echo "$?" >"$tmp/failed"; } | tar -t | grep -c -x '\(\./\)\{0,1\}etc/debian_version'
	[ ! -e "$tmp/failed" ] || return "$(cat "$tmp/failed")"
}

# crowd: all the runs, at once.
crowd() {
	pids=
	n=0
	while [ $n -lt "$RUNS" ]; do
		timeout --foreground 300 "$plash" run "$many" sh -c "echo $n >/mine; cat /mine" >"$tmp/crowd.$n" 2>"$tmp/crowd.err" &
		pids="$pids $!"
		n=$((n + 1))
	done
	n=0
	for pid in $pids; do
		wait "$pid" || { code=$?; cat "$tmp/crowd.err" >&2; return $code; }
		[ "$(cat "$tmp/crowd.$n")" = $n ] || { echo "run $n has printed $(cat "$tmp/crowd.$n")" >&2; return 1; }
		n=$((n + 1))
	done
}

# killed: kills plash at one moment or another of a run or a build.
killed() {
	n=0
	while [ $n -lt "$KILLS" ]; do
		if [ $((n % 2)) = 0 ]; then
			"$plash" run "$many" sleep "$TOKEN" >/dev/null 2>&1 &
		else
			"$plash" build --image "$many" --run "echo $n" "sleep $TOKEN" >/dev/null 2>&1 &
		fi
		pid=$!
		sleep "0.$((n * 37 % 200 + 100))"
		kill -9 $pid 2>/dev/null
		wait $pid 2>/dev/null
		n=$((n + 1))
	done
}

# left: what should not be there any more.
left() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		"$plash" clean 2>/dev/null || return
		found=$(ls -A "$PLASH_DATA/scratch"; grep -e " $PLASH_DATA/" -e " $tmp/" /proc/self/mountinfo)
		[ -n "$found" ] || return 0
		sleep 0.2
	done
	echo "$found" >&2
	return 1
}

try uid id -u
uid=$out
try doctor "$plash" doctor --json
try import "$plash" import-tar "$IMAGE"
id=$out
# shellcheck disable=SC2016
try run "$plash" run "$id" bash -c '
	[ "$(id -u)" = "$1" ] && printf "uid "
	[ "$HOME" = "$2" ] && [ "$PWD" = "$3" ] && printf "home "
	[ -d "/proc/$4" ] && [ -e /proc/self/exe ] && printf "proc "
	[ "$(cat <"/dev/tcp/127.0.0.1/$5")" = welcome ] && printf "network "
	' - "$uid" "$HOME" "$PWD" $$ "$PORT"
try filesystem "$plash" run "$id" stat -f -c %T /
try exits "$plash" run "$id" sh -c 'exit 7'
# shellcheck disable=SC2016
try dies "$plash" run "$id" sh -c 'kill -TERM $$'
try passes passed
try missing "$plash" run "$id" no-such-command
try build "$plash" build --image "$id" --run 'echo built >/built' 'test "$(id -u)" = 0'
[ "$code" != 0 ] || try built "$plash" run "$out" cat /built
try packages "$plash" build --image "$id" --apt "$PACKAGE"
[ "$code" != 0 ] || try packaged "$plash" run "$out" "$PACKAGE"
try mount mounted
try export exported
many=$id
if [ -n "$CROWD" ]; then
	try few "$plash" import-tar "$CROWD"
	many=$out
fi
try crowd crowd
try killed killed
try left left
printf 'look\n'
read -r _
try again "$plash" export-tar "$id" /dev/null
try purge "$plash" purge --yes
rm -rf "$tmp"
