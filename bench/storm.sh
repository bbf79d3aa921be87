#!/usr/bin/env bash
# bench/storm.sh [AGENTS] [SECONDS]: simulated agents (2000) at a real Poseidon that is killed, and started again after
# some seconds (10). All must come back, none dropped, nothing forgotten. PROFILE=release for figures.
set -euo pipefail
cd "$(dirname "$0")/.."
ulimit -S -n "$(ulimit -H -n)"
options=(--locked --quiet --package poseidon --bin poseidon --example storm)
[ "${PROFILE:-debug}" = release ] && options+=(--release)
# BUILT=1: by a whole `cargo test --workspace`, with which other features would build it once more.
[ -n "${BUILT:-}" ] || cargo build "${options[@]}"
"${CARGO_TARGET_DIR:-target}/${PROFILE:-debug}/examples/storm" "$@"
