#!/usr/bin/env bash
# bench/side-by-side.sh [ROUNDS]: triton beside OpenSSH and dropbear, in one run and interleaved, so that what else the machine does
# meets all alike: round trip of `true`, rate of output, memory and wake-ups. Prints medians, their spread and ratios. Loopback, keys,
# ports and folders of its own; the machine's own daemons and files are not touched. Needs root, openssh-server, openssh-client,
# dropbear-bin, python3, and openssl. TRITON and POSEIDON name the binaries; use optimised ones for figures. About 3 minutes.
set -euo pipefail
command -v python3 >/dev/null || { echo "python3 is not installed: apt-get install python3" >&2; exit 1; }
exec python3 "$(dirname "$0")/side_by_side.py" "$@"
