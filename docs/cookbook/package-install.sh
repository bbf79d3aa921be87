#!/bin/sh
# Installs or updates packages with the manager that the device has: apk, opkg or apt-get.
# Usage: package-install.sh PACKAGE…
# Needs: root, a way to the package feeds, room on the disk. A package's own questions are answered with its defaults.
set -eu

[ $# -gt 0 ] || { echo "usage: package-install.sh PACKAGE…" >&2; exit 2; }
for package; do
    case $package in
        -* | *[!A-Za-z0-9.+_:=~-]*) echo "no package is called '$package'" >&2; exit 2 ;;
    esac
done

# Outside of a job there is nobody to tell.
progress() { [ -z "${TRITON_JOB:-}" ] || triton progress "$@" || true; }

progress 5 "reading the lists of packages"
if command -v apk >/dev/null; then
    apk update
    progress 40 "installing"
    apk add "$@"
elif command -v opkg >/dev/null; then
    opkg update
    progress 40 "installing"
    opkg install "$@"
elif command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    progress 40 "installing"
    # Files that were changed by hand stay as they are.
    apt-get install -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
else
    echo "there is no apk, opkg or apt-get here" >&2
    exit 1
fi
progress 100 "installed"
