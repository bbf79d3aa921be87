#!/usr/bin/env bash
# System calls of an idle, connected agent: between two heartbeats there must be none.
set -euo pipefail
. "$(dirname "$0")/common.sh"
# An interval so long that the watch of some seconds falls between two heartbeats and keep-alives.
start 120
command -v strace >/dev/null || { echo "strace is not installed" >&2; exit 1; }
# The first heartbeat and Poseidon's questions are over when the agent's threads have slept for a while.
switches() { cat /proc/"$agent"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }'; }
quiet() { local before; before=$(switches); sleep 3; [ "$(switches)" = "$before" ]; }
wait_for "the agent comes to rest" quiet
timeout --signal=INT 15 strace -c -f -o "$folder/strace" -p "$agent" 2>/dev/null || true
cat "$folder/strace"
calls=$(awk '/total$/ { print $(NF - 1) }' "$folder/strace")
# Threads that strace finds in a system call show up as restarts of it when it lets go; nothing else may.
other=$(awk 'NR > 2 && $NF !~ /^(total|restart_syscall|poll|ppoll|futex)$/ && $1 ~ /^[0-9]/' "$folder/strace")
echo "${calls:-0} system calls in 15 s"
[ -z "$other" ] || { echo "an idle agent should be silent" >&2; exit 1; }
[ "${calls:-0}" -le 16 ] || { echo "an idle agent should be silent" >&2; exit 1; }
