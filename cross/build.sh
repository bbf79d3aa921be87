#!/usr/bin/env bash
# Static binaries for small devices: target/TRIPLE/small/triton (small-native, small-plain with --tls native, none). See cross/README.md.
# shellcheck disable=SC2154,SC2031 # The variables of a line of the table; what a subshell exports is for its programs.
set -euo pipefail
# shellcheck source=cross/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=cross/openssl.sh
. "$cross/openssl.sh"

usage() {
    cat <<'EOF'
cross/build.sh [OPTION…] TARGET…|all

  --tls rustls|native|none   rustls (default); native: a small OpenSSL, built once for each target; none: ws:// only
  --features LIST            the plugins, by comma (full; see Cargo.toml); '' builds the core only
  --check-reproducible       builds twice in different folders and compares (cross/reproducible.sh)
  --install                  installs what is missing (apt-get, rustup) instead of naming it
  --lib-tests                builds the library's tests instead, unoptimised, and prints the path of each (cross/emulate.sh)
  --prebuilt                 rustup's prebuilt standard library also where there is its source: builds faster, larger
  --list                     the targets

A target is a name of --list (mipsel) or a triple (mipsel-unknown-linux-musl).
EOF
}

for argument; do
    if [ "$argument" = --check-reproducible ]; then
        others=()
        for one; do [ "$one" = --check-reproducible ] || others+=("$one"); done
        exec "$cross/reproducible.sh" "${others[@]}"
    fi
done
tls=rustls features=full install='' lib_tests='' prebuilt='' wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        --tls) tls=${2:-}; shift ;;
        --tls=*) tls=${1#*=} ;;
        --features) features=${2:-}; shift ;;
        --features=*) features=${1#*=} ;;
        --install) install=1 ;;
        --prebuilt) prebuilt=1 ;;
        --lib-tests) lib_tests=1 ;;
        --list) awk '!/^#/ && NF { printf "%-8s %s\n", $1, $2 }' "$cross/targets"; exit ;;
        --help | -h) usage; exit ;;
        -*) usage >&2; fail "no option '$1'" ;;
        all) while read -r name; do wanted+=("$name"); done < <(names) ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || { usage >&2; fail "which target?"; }
case $tls in
    rustls) features=rustls,$features ;;
    native) features=tls,$features ;;
    none) ;;
    *) fail "--tls is rustls, native or none, not '$tls'" ;;
esac
for one in "${wanted[@]}"; do target "$one"; done

# has_source RUSTC: whether the standard library's source is beside this compiler.
has_source() {
    local root
    root=$("$1" --print sysroot 2>/dev/null) && [ -e "$root/lib/rustlib/src/rust/library/Cargo.lock" ]
}

# has_prebuilt RUSTC TRIPLE: whether its standard library is.
has_prebuilt() {
    local root
    root=$("$1" --print sysroot 2>/dev/null) && compgen -G "$root/lib/rustlib/$2/lib/libstd-*.rlib" >/dev/null
}

# Which compiler builds the target of the table, and how: sets rustc, cargo, how.
choose_rust() {
    # What rustup has chosen for this folder, or whatever else comes first in PATH.
    rustc=$(command -v rustc || true)
    cargo=$(command -v cargo || true)
    if [ -z "$prebuilt" ] && [ -n "$rustc" ] && has_source "$rustc"; then how=source; return; fi
    if [ -z "$prebuilt" ] && [ -x /usr/bin/cargo ] && has_source /usr/bin/rustc; then
        rustc=/usr/bin/rustc cargo=/usr/bin/cargo how=source
        return
    fi
    how=prebuilt
    [ -n "$rustc" ] && has_prebuilt "$rustc" "$triple"
}

need_rust() {
    choose_rust && return
    if [ -n "$install" ]; then
        # The compiler that is chosen here already, if it is rustup's; Debian's is another one.
        if command -v rustup >/dev/null && rustup component add rust-src && choose_rust; then return; fi
        if command -v apt-get >/dev/null && need_packages rustc-web cargo-web rust-web-src && choose_rust; then return; fi
    fi
    say "no compiler here has the standard library of $triple. One of these helps:"
    command -v rustup >/dev/null && {
        say "  rustup component add rust-src          (any target, smallest binary)"
        [ "$std" = source ] || say "  rustup target add $triple"
    }
    say "  apt-get install rustc-web cargo-web rust-web-src     (Debian)"
    fail "or let this script do it: cross/build.sh --install $name"
}

# rust-lld: the linker that belongs to the compiler, since zig's is older and has no --bp-compression-sort.
need_linker() {
    local root host
    root=$("$rustc" --print sysroot)
    host=$("$rustc" --version --verbose | sed -n 's/^host: //p')
    for linker in "$root/lib/rustlib/$host/bin/rust-lld" "$(dirname "$rustc")/rust-lld"; do
        export TRITON_CROSS_LLD=$linker
        [ ! -x "$linker" ] || return 0
    done
    # Debian has it as a link to what another package brings.
    [ -L "$linker" ] || fail "$rustc comes without rust-lld, the linker"
    [ -n "$install" ] || fail "missing: apt-get install $(readlink "$linker")"
    need_packages "$(readlink "$linker")"
}

need_tool() { command -v "$1" >/dev/null || missing+=("$2"); }
need_tools() {
    local missing=()
    need_tool python3 python3
    need_tool flock util-linux
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    if [ "$tls" = native ]; then need_tool perl perl; need_tool make make; fi
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -n "$install" ] || fail "missing: apt-get install ${missing[*]}"
    need_packages "${missing[@]}"
}

# build SOURCE OUTPUT: the target of the table, from a checkout, into a folder of cargo's.
build() {
    local source=$1 output=$2 root cargo_home arguments=() rustflags=() remap=()
    root=$("$rustc" --print sysroot)
    cargo_home=${CARGO_HOME:-${HOME%/}/.cargo}
    # No path of the builder's in the binary, so that all builders get the same one.
    remap=("$source=/triton" "$output=/target" "$cargo_home=/cargo" "$root/lib/rustlib/src/rust=/rust"
        "$(realpath "$root/lib/rustlib/src/rust" 2>/dev/null || echo /nowhere)=/rust")
    # The last that fits wins.
    rustflags=(-Clinker-flavor=ld.lld -Clink-self-contained=no)
    [ "${HOME%/}" = '' ] || remap=("${HOME%/}=/home" "${remap[@]}")
    for one in "${remap[@]}"; do rustflags+=("--remap-path-prefix=$one"); done
    if [ "$pie" = pie ]; then
        # rustc makes a static program position-independent for some targets only, and says nothing where it does not.
        rustflags+=(-Crelocation-model=pie -Clink-arg=-pie -Clink-arg=--no-dynamic-linker -Clink-arg=-ztext
            -Clink-arg=--pack-dyn-relocs=relr)
    else
        rustflags+=(-Crelocation-model=static)
    fi
    if [ "$how" = source ]; then
        # No unwinder: panics abort, and without std's backtrace feature nobody reads the tables.
        rustflags+=(-Cforce-unwind-tables=no)
        arguments+=('-Zbuild-std=std,panic_abort' -Zbuild-std-features=optimize_for_size)
    else
        # The prebuilt library has backtraces; its unwinder is beside it.
        rustflags+=("-Lnative=$root/lib/rustlib/$triple/lib/self-contained")
    fi
    if [ "$flags" != - ]; then
        local more
        IFS=, read -ra more <<<"$flags"
        rustflags+=("${more[@]}")
    fi
    local encoded variable=${triple//-/_}
    encoded=$(IFS=$'\x1f'; printf '%s' "${rustflags[*]}")
    say "$name: $("$rustc" --version), standard library $how, features '${features}'"
    (
        cd "$source"
        export "CC_$variable=$cross/cc" "AR_$variable=$cross/ar"
        export "CFLAGS_$variable=-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$output=/target"
        export "CARGO_TARGET_$(tr '[:lower:]' '[:upper:]' <<<"$variable")_LINKER=$cross/ld"
        # musl counts seconds in 64 bits since 1.2: without this, 32-bit devices stop in 2038.
        export RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1
        export TRITON_CROSS_TARGET=$zig TRITON_CROSS_CPU=$cpu
        # -Zbuild-std and the linker flavour are for nightly compilers; this makes a stable one take them.
        export RUSTC_BOOTSTRAP=1 RUSTC=$rustc CARGO_INCREMENTAL=0 CARGO_ENCODED_RUSTFLAGS=$encoded
        if [ "$tls" = native ]; then export OPENSSL_DIR=$openssl_folder OPENSSL_STATIC=1 OPENSSL_NO_VENDOR=1; fi
        arguments+=(--locked --target-dir "$output" --package triton --target "$triple")
        arguments+=(--no-default-features --features "$features")
        if [ -n "$lib_tests" ]; then
            # Tests abort like the program, so nothing unwinds here either.
            export CARGO_PROFILE_DEV_PANIC=abort CARGO_PROFILE_DEV_DEBUG=0
            "$cargo" test "${arguments[@]//std,panic_abort/std,panic_abort,proc_macro,test}" -Zpanic-abort-tests --lib --no-run \
                --message-format json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
        else
            "$cargo" build "${arguments[@]}" --profile small --bin triton
        fi
    )
    [ -z "$lib_tests" ] || return 0
    check "$output/$triple/small/triton" "$source"
}

# check BINARY SOURCE: that it holds nothing of the builder, and can start.
check() {
    local path type want=2 paths=("$2" "${CARGO_HOME:-${HOME%/}/.cargo}")
    # ELF's e_type, 2 for a fixed place and 3 for any: what it starts with (sysroot.sh) is made for one of them, and dies in the
    # other.
    [ "$pie" = fixed ] || want=3
    type=$(od -An -tx1 -j16 -N2 "$1" | tr -d ' 0')
    [ "$type" = "$want" ] || fail "$1 is of ELF's type $type, and $want is what its start-up code is for"
    if command -v "qemu-$qemu-static" >/dev/null; then
        "qemu-$qemu-static" "$1" --version >/dev/null || fail "$1 does not start under qemu-$qemu-static"
    fi
    # Where it is the root, every path begins with it.
    [ "${HOME%/}" = '' ] || paths+=("${HOME%/}/")
    for path in "${paths[@]}"; do
        ! grep -qaF -e "$path" "$1" || fail "$1 contains the builder's path $path"
    done
}

# What goes into the cache, for this target: made if it is not there.
prepare() {
    target "$1"
    need_rust
    need_linker
    need_sysroot
    [ "$tls" != native ] || need_openssl
}

need_tools
one_at_a_time
need_zig
for one in "${wanted[@]}"; do prepare "$one"; done
let_others_go_on
for one in "${wanted[@]}"; do
    prepare "$one"
    small=$(target_folder)/$triple/small/triton
    # What other builds leave is put beside: small/ keeps what devices get.
    case $tls in
        native) kept=$(target_folder)/$triple/small-native/triton ;;
        none) kept=$(target_folder)/$triple/small-plain/triton ;;
        *) kept=$small ;;
    esac
    if [ -n "$lib_tests" ]; then
        build "$checkout" "$(target_folder)"
        continue
    fi
    if [ "$kept" != "$small" ] && [ -e "$small" ]; then mv "$small" "$small.kept"; fi
    build "$checkout" "$(target_folder)"
    if [ "$kept" != "$small" ]; then
        mkdir -p "$(dirname "$kept")"
        mv "$small" "$kept"
        [ ! -e "$small.kept" ] || mv "$small.kept" "$small"
    fi
    ls -l "$kept"
done
