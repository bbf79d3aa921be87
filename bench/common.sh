# Sourced by the scripts here: a Poseidon and a connected agent, both ended at exit.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
triton=${TRITON:-$target/release/triton}
poseidon=${POSEIDON:-$target/debug/poseidon}
for program in "$triton" "$poseidon"; do
    [ -x "$program" ] || { echo "$program is not built: cargo build --release --bin triton; cargo build -p poseidon" >&2; exit 1; }
done
folder=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$folder"
}
trap finish EXIT

# wait_for WHAT COMMAND…: until the command succeeds, a minute at most.
wait_for() {
    local what=$1
    shift
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "did not happen: $what" >&2
    cat "$folder"/*.log >&2
    exit 1
}

up() { "$poseidon" --data "$folder/data" agents --json | grep -q '"state": *"up"'; }

# start HEARTBEAT: leaves the agent's process in $agent.
start() {
    "$poseidon" serve --listen 127.0.0.1:0 --data "$folder/data" --heartbeat-seconds "$1" >"$folder/poseidon.log" 2>&1 &
    pids+=($!)
    wait_for "Poseidon listens" grep -q listens "$folder/poseidon.log"
    url=$(grep -o 'http://[0-9.:]*' "$folder/poseidon.log" | head -n 1)
    "$triton" identifier --state "$folder/state" >"$folder/identifier"
    "$poseidon" --data "$folder/data" register --identifier-file "$folder/identifier" --name bench >/dev/null
    "$triton" run --url "$url" --state "$folder/state" --socket "$folder/triton.sock" >"$folder/triton.log" 2>&1 &
    agent=$!
    pids+=("$agent")
    wait_for "the agent is up" up
}
