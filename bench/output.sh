#!/usr/bin/env bash
# A job with so many megabytes of output (1000) through the real agent and the real Poseidon: all bytes must
# arrive, and the agent's resident memory must stay below 8 MB.
set -euo pipefail
. "$(dirname "$0")/common.sh"
megabytes=${1:-1000}
limit_kb=8192
start 15
resident() { awk '/VmRSS/ { print $2 }' "/proc/$agent/status"; }
before=$(resident)
began=$(date +%s.%N)
"$poseidon" --data "$folder/data" run bench -- \
    sh -c "head -c ${megabytes}000000 /dev/zero | tr '\\0' x" | wc -c >"$folder/count" &
run=$!
peak=$before
while kill -0 "$run" 2>/dev/null; do
    now=$(resident)
    [ "$now" -gt "$peak" ] && peak=$now
    sleep 0.05
done
wait "$run"
ended=$(date +%s.%N)
count=$(cat "$folder/count")
awk -v n="$count" -v s="$began" -v e="$ended" -v b="$before" -v p="$peak" 'BEGIN {
    printf "%d bytes in %.1f s (%.0f MB/s); the agent: %d kB resident before, %d kB at most\n", n, e - s, n / 1e6 / (e - s), b, p }'
[ "$count" = "${megabytes}000000" ] || { echo "bytes are missing" >&2; exit 1; }
[ "$peak" -lt "$limit_kb" ] || { echo "more than $limit_kb kB" >&2; exit 1; }
