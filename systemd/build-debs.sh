#!/usr/bin/env bash
# The .deb packages of triton: systemd/build-debs.sh [amd64|arm64|armhf|poseidon|all]...
#
# The agent's are made of the static binaries that cross/build.sh builds. Poseidon's is for this machine's processor,
# and linked with its C library. Without arguments: all. They are written to target/debian, or to OUT.
#
#   VERSION=0.1.0-1     another version than Cargo.toml's
#   POSEIDON_PROFILE=dev  a quick build of Poseidon, for tests
#   TRITON_BINARIES=DIR   take DIR/TARGET/small/triton as it is, in place of building it
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# Pinned: what it writes is what the tests have seen.
cargo_deb=3.8.0
tools=${TRITON_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/triton/cargo-deb-$cargo_deb}

die() { echo "build-debs: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2"; }

need dpkg-deb dpkg
need dpkg-shlibdeps dpkg-dev
need cargo cargo

# What Debian calls armhf is ARMv7, but Raspberry Pi OS uses the name for ARMv6 too, and one binary serves both.
target_of() {
    case $1 in
        amd64) echo x86_64-unknown-linux-musl ;;
        arm64) echo aarch64-unknown-linux-musl ;;
        armhf) echo arm-unknown-linux-musleabihf ;;
        *) return 1 ;;
    esac
}

[ $# -gt 0 ] || set -- all
wanted=()
for word in "$@"; do
    case $word in
        all) wanted+=(amd64 arm64 armhf poseidon) ;;
        amd64 | arm64 | armhf | poseidon) wanted+=("$word") ;;
        *) die "unknown package $word; there are amd64, arm64, armhf, poseidon and all" ;;
    esac
done

if ! [ -x "$tools/bin/cargo-deb" ]; then
    echo "installing cargo-deb $cargo_deb into $tools (a minute)" >&2
    # Not into this checkout's target folder, and not by its lock file.
    (cd / && CARGO_TARGET_DIR="$tools/build" cargo install cargo-deb --version "$cargo_deb" --locked \
        --no-default-features --features lzma --root "$tools" --quiet) || die "cargo install cargo-deb failed"
    rm -rf "$tools/build"
fi

target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
out=$(realpath -m "${OUT:-$target/debian}")
mkdir -p "$out"
cargo_version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
version=${VERSION:-$cargo_version-1}

# Debian's form of a change log; what has changed is in CHANGELOG.md.
date=$(git log -1 --format=%cD 2>/dev/null || date -R)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
changelog() {
    printf '%s (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n -- %s  %s\n' "$1" "$version" \
        "$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)" "$date" > "$root/systemd/debian/changelog"
}
trap 'rm -f "$root/systemd/debian/changelog"' EXIT

pack() { "$tools/bin/cargo-deb" --no-build --locked --deb-version "$version" --output "$out/" --quiet "$@"; }

for package in "${wanted[@]}"; do
    if [ "$package" = poseidon ]; then
        changelog poseidon
        profile=${POSEIDON_PROFILE:-release}
        # BUILT=1: it is there already.
        [ -n "${BUILT:-}" ] || cargo build --locked --package poseidon --profile "$profile" --quiet
        pack --package poseidon --profile "$profile"
        continue
    fi
    triple=$(target_of "$package")
    changelog triton
    binaries=${TRITON_BINARIES:-}
    if [ -z "$binaries" ]; then
        [ -x cross/build.sh ] || die "cross/build.sh is missing; or set TRITON_BINARIES"
        cross/build.sh "$triple"
        binaries=$target
    fi
    [ -f "$binaries/$triple/small/triton" ] || die "there is no $binaries/$triple/small/triton"
    CARGO_TARGET_DIR=$binaries pack --no-strip --package triton --target "$triple" --profile small
done
ls -l "$out"/*_"$version"_*.deb
