#!/bin/sh
# Tests the package for OpenWrt: the init script, the plugin for rpcd and what is installed, in a root folder with busybox
# and stand-ins for OpenWrt's own scripts, with the real agent; and the packages themselves. As root. Half a minute.
#
#   openwrt/test/run.sh [TEST...]     e.g. test_init.Init.test_every_option_arrives
#
# TRITON names an agent of this machine; else one is built.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"

fail() {
	echo "openwrt/test/run.sh: $*" >&2
	exit 1
}

need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null || fail "$1 is missing (Debian: apt-get install $2)"
}

need busybox busybox-static
need shellcheck shellcheck
need make make
need strip binutils
need python3 python3
need script bsdutils
need unshare util-linux
python3 -c 'import tomllib' 2>/dev/null || fail "python3 3.11 or newer is needed"
BUSYBOX="$(command -v busybox)"
if ldd "$BUSYBOX" >/dev/null 2>&1; then fail "$BUSYBOX is not static (Debian: apt-get install busybox-static)"; fi

# In a mount namespace of its own: whatever happens, no mount is left behind.
[ "$(id -u)" = 0 ] || fail "run it as root: it needs chroot and mounts (in a namespace of its own)"
unshare --mount true || fail "a mount namespace is needed, and is not allowed here"

cd "$root/openwrt"
shellcheck -s dash triton/files/triton.init triton/files/triton.defaults triton/files/triton.rpcd triton/test.sh
shellcheck build-packages.sh test/run.sh
shellcheck -s dash -e SC2013,SC2034,SC2119,SC2120 test/stand-in/functions.sh test/stand-in/procd.sh test/stand-in/rc.common \
	test/stand-in/jshn.sh test/stand-in/uci test/stand-in/validate_data

if [ -z "${TRITON:-}" ]; then
	(cd "$root" && cargo build --locked --bin triton)
	TRITON="${CARGO_TARGET_DIR:-$root/target}/debug/triton"
fi
[ -x "$TRITON" ] || fail "there is no agent at $TRITON"
export TRITON BUSYBOX PYTHONDONTWRITEBYTECODE=1
cd "$here"
if [ $# = 0 ]; then set -- test_init test_rpcd test_packages; fi
exec unshare --mount python3 -m unittest "$@"
