# shellcheck shell=bash
# What the scripts of this folder share: the table of targets, the cache, the tools.

cross=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(dirname "$cross")
# Unset by cron and some containers; cargo then asks for the same.
if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" | cut -d : -f 6 || true)
    export HOME=${HOME:-/}
fi
cache=${XDG_CACHE_HOME:-${HOME%/}/.cache}/triton-cross

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
fail() { say "$@"; exit 1; }

names() { awk '!/^#/ && NF { print $1 }' "$cross/targets"; }

# target NAME|TRIPLE: sets the variables of its line in the table.
target() {
    local line
    line=$(awk -v want="$1" '!/^#/ && ($1 == want || $2 == want)' "$cross/targets")
    [ -n "$line" ] || fail "no target '$1'; there are: $(names | tr '\n' ' ')"
    # Not all scripts use all of them.
    # shellcheck disable=SC2034
    read -r name triple zig cpu qemu std pie openssl flags <<<"$line"
}

# Where cargo puts what it builds.
target_folder() {
    local folder=${CARGO_TARGET_DIR:-target}
    case $folder in
        /*) printf '%s\n' "$folder" ;;
        *) printf '%s\n' "$checkout/$folder" ;;
    esac
}

# hash FILE…: a name for what is made from these files with this line of the table.
hash() { { cat "$@" && echo "${zig:-} ${cpu:-} ${pie:-} ${openssl:-}"; } | sha256sum | cut -c 1-12; }

# Two builds do not fill the cache at once.
one_at_a_time() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
}
let_others_go_on() { exec 9>&-; }

# zig, at the version of requirements.txt, in a folder of its own.
need_zig() {
    local folder
    folder=$cache/tools-$(sha256sum <"$cross/requirements.txt" | cut -c 1-12)
    zig_python=$folder/bin/python
    export TRITON_CROSS_ZIG=$zig_python
    export ZIG_GLOBAL_CACHE_DIR=$cache/zig ZIG_LOCAL_CACHE_DIR=$cache/zig
    "$zig_python" -m ziglang version >/dev/null 2>&1 && return
    say "installing zig into $folder"
    command -v python3 >/dev/null || fail "python3 is not installed: apt-get install python3 python3-venv"
    rm -rf "$folder"
    python3 -m venv "$folder" || fail "python3 makes no virtual environment: apt-get install python3-venv"
    "$zig_python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        --requirement "$cross/requirements.txt" || fail "pip cannot install zig, see above"
}

# The C library of the target of the table, made by zig once, into $sysroot.
need_sysroot() {
    sysroot=$cache/sysroot-$(hash "$cross/requirements.txt" "$cross/sysroot.sh" "$cross/shim.c")/$triple
    export TRITON_CROSS_SYSROOT=$sysroot
    [ -e "$sysroot/complete" ] || "$cross/sysroot.sh" "$zig" "$cpu" "$pie" "$sysroot"
}

# need_packages NAME…: Debian packages, installed now.
need_packages() {
    local sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    command -v apt-get >/dev/null || fail "this is not Debian; install what corresponds to: $*"
    say "installing $*"
    { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@"; } >/dev/null
}
