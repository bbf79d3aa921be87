#!/bin/sh
# Builds packages for OpenWrt from static binaries, without its SDK: .ipk (opkg, up to 24.10), and .apk (25.12 and later)
# where apk-tools 3 is installed. The same input gives the same bytes.
# shellcheck disable=SC2016 # it is the router's shell that expands what is in single quotes
set -eu

usage() {
	cat <<'END'
Usage: openwrt/build-packages.sh [--out FOLDER] [--binary FILE] ARCH...|all|list

  ARCH           OpenWrt's name, as 'opkg print-architecture' or 'apk --print-arch' on the router says; 'list' shows
                 those that are known and the binary of each
  --out FOLDER   where packages go; the default is openwrt/out
  --binary FILE  the binary, for one ARCH; the default is target/TARGET/small/triton, which cross/build.sh makes

SOURCE_DATE_EPOCH is the time of all files in the packages; the default is that of the last commit.
END
}

fail() {
	echo "build-packages.sh: $*" >&2
	exit 1
}

here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$here")"
files="$here/triton/files"

# OpenWrt's architecture and the Rust target whose binary runs there. A static binary needs the processor's instructions
# only, so soft-float ARM of any age takes ARMv5's.
architectures() {
	cat <<'END'
mipsel_24kc                mipsel-unknown-linux-musl
mipsel_24kc_24kf           mipsel-unknown-linux-musl
mipsel_74kc                mipsel-unknown-linux-musl
mips_24kc                  mips-unknown-linux-musl
arm_cortex-a5_vfpv4        armv7-unknown-linux-musleabihf
arm_cortex-a7_vfpv4        armv7-unknown-linux-musleabihf
arm_cortex-a7_neon-vfpv4   armv7-unknown-linux-musleabihf
arm_cortex-a8_vfpv3        armv7-unknown-linux-musleabihf
arm_cortex-a9_vfpv3-d16    armv7-unknown-linux-musleabihf
arm_cortex-a9_neon         armv7-unknown-linux-musleabihf
arm_cortex-a15_neon-vfpv4  armv7-unknown-linux-musleabihf
arm_arm1176jzf-s_vfp       arm-unknown-linux-musleabihf
arm_cortex-a7              armv5te-unknown-linux-musleabi
arm_cortex-a9              armv5te-unknown-linux-musleabi
arm_arm926ej-s             armv5te-unknown-linux-musleabi
arm_xscale                 armv5te-unknown-linux-musleabi
aarch64_cortex-a53         aarch64-unknown-linux-musl
aarch64_cortex-a72         aarch64-unknown-linux-musl
aarch64_cortex-a76         aarch64-unknown-linux-musl
aarch64_generic            aarch64-unknown-linux-musl
x86_64                     x86_64-unknown-linux-musl
riscv64_generic            riscv64gc-unknown-linux-musl
END
}

# The bytes of an ELF header that tell the processor: class, byte order, machine.
expected_elf() { # TARGET
	case "$1" in
	mipsel-*) echo "01 01 08 00" ;;
	mips-*) echo "01 02 00 08" ;;
	arm*) echo "01 01 28 00" ;;
	aarch64-*) echo "02 01 b7 00" ;;
	x86_64-*) echo "02 01 3e 00" ;;
	riscv64gc-*) echo "02 01 f3 00" ;;
	esac
}

check_binary() { # FILE TARGET
	[ -f "$1" ] || fail "there is no $1; build it with: cross/build.sh $2"
	# shellcheck disable=SC2046 # words
	set -- "$1" "$2" $(od -An -v -tx1 -N20 "$1")
	[ "${3-} ${4-} ${5-} ${6-}" = "7f 45 4c 46" ] || fail "$1 is no ELF program"
	[ "$7 $8 ${21} ${22}" = "$(expected_elf "$2")" ] || fail "$1 is for another processor than $2"
	if LC_ALL=C grep -aqE '/lib(64|32)?/ld-(linux|musl)' "$1"; then
		fail "$1 is linked dynamically; a package without the SDK needs a static binary"
	fi
}

# What triton/Makefile installs, and what the SDK adds for opkg and apk alike.
make_tree() { # FOLDER BINARY
	install -d -m 0755 "$1/usr/bin" "$1/etc/config" "$1/etc/init.d" "$1/etc/uci-defaults" "$1/usr/libexec/rpcd" \
		"$1/usr/share/rpcd/acl.d" "$1/lib/upgrade/keep.d"
	install -m 0755 "$2" "$1/usr/bin/triton"
	install -m 0600 "$files/triton.config" "$1/etc/config/triton"
	install -m 0755 "$files/triton.init" "$1/etc/init.d/triton"
	install -m 0755 "$files/triton.defaults" "$1/etc/uci-defaults/80-triton"
	install -d -m 0700 "$1/etc/triton"
	ln -sf /var/run/triton/triton.toml "$1/etc/triton/triton.toml"
	install -m 0755 "$files/triton.rpcd" "$1/usr/libexec/rpcd/triton"
	install -m 0644 "$files/triton.acl.json" "$1/usr/share/rpcd/acl.d/triton.json"
	echo /etc/triton/ >"$1/lib/upgrade/keep.d/triton"
	chmod 0644 "$1/lib/upgrade/keep.d/triton"
}

conffiles() {
	printf '%s\n' /etc/config/triton /etc/triton/
}

summary="Remote-management agent for small devices"
description="Triton keeps one WebSocket to a central instance, Poseidon, reports the
health of the device over it and runs commands with streamed output,
cancel and time-outs. It works offline, too, through a local socket and
the command triton."

postinst_body='[ -n "${IPKG_INSTROOT}" ] || [ ! -x /etc/init.d/rpcd ] || /etc/init.d/rpcd reload'

# A tar of a folder: names sorted, root's, one time.
archive() { # FOLDER
	tar --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$1" -cf - . |
		gzip -9n
}

build_ipk() { # ARCH TREE OUTPUT
	work="$scratch/ipk"
	rm -rf "$work"
	mkdir -p "$work/control" "$work/package"
	{
		echo "Package: triton"
		echo "Version: $version"
		echo "Depends: ca-bundle"
		echo "Source: openwrt/triton"
		echo "SourceName: triton"
		echo "License: Apache-2.0 MIT"
		echo "LicenseFiles: LICENSE-APACHE LICENSE-MIT"
		echo "Section: admin"
		echo "SourceDateEpoch: $SOURCE_DATE_EPOCH"
		echo "Maintainer: $maintainer"
		echo "Architecture: $1"
		echo "Installed-Size: $(find "$2" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d", sum }')"
		echo "Description: $summary"
		echo "$description" | sed 's/^/ /'
	} >"$work/control/control"
	conffiles >"$work/control/conffiles"
	cat >"$work/control/postinst" <<'END'
#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_postinst $0 $@
END
	printf '#!/bin/sh\n%s\nexit 0\n' "$postinst_body" >"$work/control/postinst-pkg"
	cat >"$work/control/prerm" <<'END'
#!/bin/sh
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_prerm $0 $@
END
	chmod 0644 "$work/control/control" "$work/control/conffiles"
	chmod 0755 "$work/control" "$work/control/postinst" "$work/control/postinst-pkg" "$work/control/prerm"
	echo 2.0 >"$work/package/debian-binary"
	archive "$work/control" >"$work/package/control.tar.gz"
	archive "$2" >"$work/package/data.tar.gz"
	# In the order in which opkg's own tool writes them. Not an 'ar', which opkg refuses.
	tar --format=gnu --owner=0 --group=0 --numeric-owner --mode=0644 --mtime="@$SOURCE_DATE_EPOCH" -C "$work/package" \
		-cf - ./debian-binary ./data.tar.gz ./control.tar.gz | gzip -9n >"$3"
}

build_apk() { # ARCH TREE OUTPUT
	work="$scratch/apk"
	rm -rf "$work"
	mkdir -p "$work/scripts"
	cp -a "$2" "$work/tree"
	lists="$work/tree/lib/apk/packages"
	mkdir -p "$lists"
	# Without the list nothing is enabled or started. It does not name itself or its neighbours.
	(cd "$2" && find . \( -type f -o -type l \) -printf '/%P\n' | LC_ALL=C sort) >"$lists/triton.list"
	conffiles >"$lists/triton.conffiles"
	echo "/etc/config/triton $(sha256sum <"$2/etc/config/triton" | cut -d ' ' -f 1)" >"$lists/triton.conffiles_static"
	body='[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
export root="${IPKG_INSTROOT}"
export pkgname="triton"'
	printf '#!/bin/sh\n%s\nadd_group_and_user\ndefault_postinst\n%s\nexit 0\n' "$body" "$postinst_body" >"$work/scripts/post-install"
	{
		printf '#!/bin/sh\nexport PKG_UPGRADE=1\n'
		sed 1d "$work/scripts/post-install"
	} >"$work/scripts/post-upgrade"
	printf '#!/bin/sh\n%s\ndefault_prerm\n' "$body" >"$work/scripts/pre-deinstall"
	chmod 0755 "$work/scripts"/*
	find "$work/tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	owner=
	[ "$(id -u)" = 0 ] || owner=fakeroot
	# shellcheck disable=SC2086 # a word or none
	$owner sh -c 'chown -R 0:0 "$1" && shift && exec "$@"' sh "$work/tree" \
		apk mkpkg \
		--info "name:triton" \
		--info "version:$version" \
		--info "description:$summary" \
		--info "arch:$1" \
		--info "license:Apache-2.0 MIT" \
		--info "origin:openwrt/triton" \
		--info "maintainer:$maintainer" \
		--info "depends:ca-bundle" \
		--script "post-install:$work/scripts/post-install" \
		--script "post-upgrade:$work/scripts/post-upgrade" \
		--script "pre-deinstall:$work/scripts/pre-deinstall" \
		--files "$work/tree" \
		--output "$3"
}

out="$here/out"
binary=
arches=
while [ $# -gt 0 ]; do
	case "$1" in
	-h | --help)
		usage
		exit 0
		;;
	--out)
		[ $# -ge 2 ] || fail "--out takes a folder"
		out="$2"
		shift
		;;
	--binary)
		[ $# -ge 2 ] || fail "--binary takes a file"
		binary="$2"
		shift
		;;
	list)
		architectures
		exit 0
		;;
	all) arches="$arches $(architectures | cut -d ' ' -f 1 | tr '\n' ' ')" ;;
	-*) fail "unknown option $1; see --help" ;;
	*) arches="$arches $1" ;;
	esac
	shift
done
[ -n "$arches" ] || {
	usage >&2
	exit 2
}
# shellcheck disable=SC2086 # words
set -- $arches
[ -z "$binary" ] || [ $# = 1 ] || fail "--binary is for one ARCH"

tar --version 2>/dev/null | grep -q 'GNU tar' || fail "GNU tar is needed (Debian: apt-get install tar)"
number="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")"
release="$(sed -n 's/^PKG_RELEASE:=//p' "$here/triton/Makefile")"
maintainer="$(sed -n 's/^PKG_MAINTAINER:=//p' "$here/triton/Makefile")"
if [ -z "$number" ] || [ -z "$release" ]; then fail "cannot find the version in Cargo.toml and triton/Makefile"; fi
# apk's grammar, which sorts right with opkg, too: 1.0.0-rc1 becomes 1.0.0_rc1.
version="$(echo "$number" | sed 's/-\(alpha\|beta\|pre\|rc\)\.\{0,1\}/_\1/')-r$release"
echo "$version" | grep -qE '^[0-9]+(\.[0-9]+)*(_(alpha|beta|pre|rc)[0-9]*)?-r[0-9]+$' ||
	fail "apk does not understand the version $version; use 1.2.3, or 1.2.3-rc1 (alpha, beta, pre, rc)"
: "${SOURCE_DATE_EPOCH:=$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}"

have_apk=
if apk --version 2>/dev/null | grep -q 'apk-tools 3'; then
	have_apk=1
	[ "$(id -u)" = 0 ] || command -v fakeroot >/dev/null || fail "fakeroot is needed for .apk (Debian: apt-get install fakeroot)"
fi

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
umask 022
mkdir -p "$out"
for arch; do
	target="$(architectures | awk -v arch="$arch" '$1 == arch { print $2 }')"
	[ -n "$target" ] || fail "unknown architecture $arch; see: build-packages.sh list"
	program="${binary:-${CARGO_TARGET_DIR:-$root/target}/$target/small/triton}"
	check_binary "$program" "$target"
	rm -rf "$scratch/tree"
	make_tree "$scratch/tree" "$program"
	ipk="$out/triton_${version}_$arch.ipk"
	build_ipk "$arch" "$scratch/tree" "$scratch/package"
	mv "$scratch/package" "$ipk"
	echo "$ipk: $(wc -c <"$ipk") bytes"
	if [ -n "$have_apk" ]; then
		# apk looks for NAME-VERSION.apk, so each architecture has a folder.
		mkdir -p "$out/$arch"
		apk="$out/$arch/triton-$version.apk"
		build_apk "$arch" "$scratch/tree" "$scratch/package"
		mv "$scratch/package" "$apk"
		echo "$apk: $(wc -c <"$apk") bytes"
	fi
done
[ -n "$have_apk" ] || echo "no .apk: apk-tools 3 is not installed here (OpenWrt's SDK has it, in staging_dir/host/bin)"
