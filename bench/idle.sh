#!/usr/bin/env bash
# System calls of an idle, connected agent: between two heartbeats there must be none. Needs strace.
set -euo pipefail
. "$(dirname "$0")/common.sh"
command -v strace >/dev/null || { echo "strace is not installed" >&2; exit 1; }
# An interval so long that the watch of some seconds falls between two heartbeats and keep-alives.
start 120

# watch SECONDS: system calls of all threads of the agent, by strace -c, into $folder/calls.
watch() {
    strace -c -f -o "$folder/strace" -p "$agent" 2>"$folder/strace.log" &
    local strace=$!
    pids+=("$strace")
    wait_for "strace attaches" grep -q attached "$folder/strace.log"
    sleep "$1"
    kill -INT "$strace"
    wait "$strace" || true
    awk '$NF == "total" { n = $4 } END { print n + 0 }' "$folder/strace" >"$folder/calls"
}

# The first heartbeat and Poseidon's answers are over when the agent's threads have slept for a while.
switches() { cat /proc/"$agent"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }'; }
quiet() { local before; before=$(switches); sleep 3; [ "$(switches)" = "$before" ]; }
wait_for "the agent comes to rest" quiet

# That the watch sees anything at all is shown by a question meanwhile.
(sleep 1; "$triton" status --socket "$folder/triton.sock" >/dev/null) &
watch 3
busy=$(cat "$folder/calls")
wait_for "the agent comes to rest" quiet
watch 15
idle=$(cat "$folder/calls")
cat "$folder/strace"
echo "$busy system calls in 3 s with one 'triton status', $idle in 15 s without"
[ "$busy" -gt 5 ] || { echo "the watch sees nothing" >&2; exit 1; }
[ "$idle" -eq 0 ] || { echo "an idle agent should be silent" >&2; exit 1; }
