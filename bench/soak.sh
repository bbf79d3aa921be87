#!/usr/bin/env bash
# bench/soak.sh [JOBS] [MINUTES]: at least so many jobs (6000) and minutes (0) with a reconnect for each ten, at the real
# Poseidon; then memory, descriptors, threads and journal must be as when all was warm, and the ledger must hold.
set -euo pipefail
cd "$(dirname "$0")/.."
export TRITON_SOAK_JOBS=${1:-6000} TRITON_SOAK_MINUTES=${2:-0}
cargo test --locked --quiet --workspace --test soak -- --ignored --nocapture
