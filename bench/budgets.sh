#!/usr/bin/env bash
# bench/budgets.sh [--self-test] [TARGET…]: what Triton costs a device, in one table: size, memory, wake-ups, bytes on the wire,
# flash. Fails where a budget (bench/budgets) is passed, and where a TARGET asked for is not built. About 3 minutes.
# TRITON and POSEIDON name other binaries, BUDGETS another file.
set -euo pipefail
command -v python3 >/dev/null || { echo "python3 is not installed: apt-get install python3" >&2; exit 1; }
exec python3 "$(dirname "$0")/budgets.py" "$@"
