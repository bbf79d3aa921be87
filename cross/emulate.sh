#!/usr/bin/env bash
# The tests of the agent against Poseidon, with the agent of another processor under qemu. See cross/README.md.
# shellcheck disable=SC2154 # The variables of a line of the table.
set -euo pipefail
# shellcheck source=cross/common.sh
. "$(dirname "$0")/common.sh"

usage() {
    cat <<'EOF'
cross/emulate.sh [OPTION…] [TARGET…]

  --quick          leaves out what takes minutes: acts, crash, exchange, faults, inside, namespaces, plugins, policy, resources,
                   schedule, scripts, service
  --tls native     the binary with the small OpenSSL instead of rustls
  --no-build       the binary that is there already
  --install        installs what is missing (apt-get, rustup)
  --test NAME      only this file of tests/ (may be given several times)
  --units          also the library's tests of messages, journal and health, compiled for the target (mips is big-endian)

Without a target: armv7 aarch64 mipsel mips. Poseidon and the tests themselves are native.
EOF
}

# What starts the program. tests/connect.rs, jobs and reconnects.rs ask the library, soak.rs measures memory, device is about
# this machine's kernel, and update.rs and fleet.rs put another program in the place of the one that runs: to start that, the
# kernel itself would have to know qemu.
tests=(doctor events files history local poseidon records relay session tls tls_program trust)
slow=(acts crash exchange faults inside namespaces plugins policy resources schedule scripts service)

# What cannot mean anything under qemu, and why. "test: reason".
skipped='
a_command_that_fails_is_stored_and_the_device_stays_in_reach: the agent starts itself anew, which needs a kernel that knows qemu
a_restart_is_no_end_for_the_service_manager: as above
a_restart_waits_for_the_acknowledgement_keeps_the_identity_and_runs_once: as above
poseidon_knows_that_a_restart_was_meant: as above
the_options_of_run_and_script_reach_the_process: qemu keeps RLIMIT_AS from the programs that it runs
memory_stays_flat_over_a_large_file: resident memory is that of qemu
failed_reconnects_cost_nothing: resident memory is that of qemu, which keeps what it has translated
an_agent_that_cannot_start_its_threads_says_so: qemu has threads of its own and aborts where it gets none
an_agent_without_descriptors_says_so_and_recovers: qemu holds descriptors of its own, so fewer are left than the test counts on
'

quick='' build=1 variant=small options=() units='' only=() wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1 ;;
        --tls)
            options+=(--tls "${2:-}")
            case ${2:-} in rustls) variant=small ;; native) variant=small-native ;; *) fail "--tls is rustls or native" ;; esac
            shift
            ;;
        --no-build) build='' ;;
        --install) options+=(--install) ;;
        --test) only+=("${2:-}"); shift ;;
        --units) units=1 ;;
        --help | -h) usage; exit ;;
        -*) usage >&2; fail "no option '$1'" ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(armv7 aarch64 mipsel mips)
for one in "${wanted[@]}"; do target "$one"; done
[ -n "$quick" ] || tests+=("${slow[@]}")
# The starts that the tests make at least.
least=20
if [ ${#only[@]} -gt 0 ]; then tests=("${only[@]}") least=1; fi

# need_qemu NAME: its path, in $emulator.
need_qemu() {
    emulator=$(command -v "qemu-$1-static" || command -v "qemu-$1" || true)
    [ -z "$emulator" ] || return 0
    case " ${options[*]} " in
        *' --install '*) need_packages qemu-user-static ;;
        *) fail "qemu-$1-static is not installed: apt-get install qemu-user-static" ;;
    esac
    emulator=$(command -v "qemu-$1-static")
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Jobs and agents of other users read it, too.
chmod 755 "$folder"
skips=()
while IFS=: read -r test _; do [ -z "$test" ] || skips+=(--skip "$test"); done <<<"$skipped"
arguments=()
for test in "${tests[@]}"; do arguments+=(--test "$test"); done

# Built now: each test that needs Poseidon would ask cargo for it.
if [ -z "${TRITON_TEST_POSEIDON:-}" ]; then
    (cd "$checkout" && cargo build --locked --workspace --bin poseidon)
    TRITON_TEST_POSEIDON=$(target_folder)/debug/poseidon
    export TRITON_TEST_POSEIDON
fi

for one in "${wanted[@]}"; do
    target "$one"
    need_qemu "$qemu"
    [ -z "$build" ] || "$cross/build.sh" "${options[@]}" "$name"
    built=$(target_folder)/$triple/$variant/triton
    [ -x "$built" ] || fail "there is no $built: leave out --no-build"
    # A copy, since another build may replace it while the tests run.
    cp "$built" "$folder/triton-$name"
    # A fault of qemu with big-endian programs: see the file.
    before=''
    if [ "$name" = mips ]; then
        need_zig
        "$TRITON_CROSS_ZIG" -m ziglang cc -O1 -o "$folder/without-netlink" "$cross/without-netlink.c"
        before=$folder/without-netlink
    fi
    # exec keeps the process id, so that signals and kill -9 reach the agent. Each start is counted: a run that passes
    # because some other binary was tested would say nothing.
    starts=$folder/starts-$name
    : >"$starts"
    chmod 666 "$starts"
    cat >"$folder/run-$name" <<EOF
#!/bin/sh
echo >>"$starts"
exec $before "$emulator" "$folder/triton-$name" "\$@"
EOF
    chmod 755 "$folder/run-$name"
    said=$("$folder/run-$name" --version) || fail "$built does not run under $emulator"
    # Only what the tests start counts.
    : >"$starts"
    say "$name: $said, $(stat -c %s "$built") bytes, under $("$emulator" --version | head -n 1)"
    (
        cd "$checkout"
        export TRITON_TEST_BINARY=$folder/run-$name
        # What only repeats, less often: qemu is ten times slower than the processor it runs on.
        export TRITON_TEST_MEGABYTES="${TRITON_TEST_MEGABYTES:-5}"
        export TRITON_CRASH_ROUNDS="${TRITON_CRASH_ROUNDS:-30}" TRITON_FAULTS_STEPS="${TRITON_FAULTS_STEPS:-20}"
        cargo test --locked --workspace "${arguments[@]}" -- "${skips[@]}"
    )
    if [ -n "$units" ]; then
        # Only what reads and writes bytes: the rest is about this machine's processes.
        library=$("$cross/build.sh" "${options[@]}" --lib-tests "$name" | tail -n 1)
        # One process for all is not for a stable test harness.
        # shellcheck disable=SC2086 # Nothing where there is nothing before it.
        RUSTC_BOOTSTRAP=1 $before "$emulator" "$library" -Zunstable-options --force-run-in-process --test-threads 1 message:: journal:: plugin::health \
            link::head link::backoff config:: dates:: || fail "$name: the test that was begun last has failed"
    fi
    started=$(wc -l <"$starts")
    [ "$started" -ge "$least" ] || fail "$name: the tests started it $started times, $least at least should be: did they test another binary?"
    say "$name: passed; the agent was started $started times"
done
