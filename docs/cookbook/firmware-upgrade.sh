#!/bin/sh
# Upgrades OpenWrt with an image that is on the device already, by sysupgrade; settings are kept.
# Usage: firmware-upgrade.sh --image-has-triton IMAGE SHA256 [SECONDS]
#     IMAGE is an absolute path, in memory (/tmp); SHA256 is its own, 64 hex digits; SECONDS until it begins, 15 unless given.
# Needs: root, OpenWrt's sysupgrade, sha256sum and start-stop-daemon; room in memory for the image ('poseidon push IMAGE NAME:/tmp/').
# --image-has-triton is your word that the image holds the package triton: sysupgrade keeps its settings and not its program, and a device
# without the program does not come back. Nothing here can see that: look into the image's manifest.
# What it promises: 0 says that the image is the one that was meant, that sysupgrade takes it for this device, and that the upgrade was
# begun. How that ends nobody is told by this job: the device goes down, which takes minutes, and must not lose power meanwhile. When it is
# back 'poseidon show NAME' has its new kernel. Where sysupgrade refuses after all the device stays as it is, and /var/run/firmware-upgrade.log says why.
set -eu

usage() { echo "usage: firmware-upgrade.sh --image-has-triton IMAGE SHA256 [SECONDS]" >&2; exit 2; }
if [ "${1:-}" != --image-has-triton ]; then
    echo "without triton in the image this device does not come back to Poseidon: make sure of it, and say --image-has-triton" >&2
    usage
fi
shift
case $# in 2 | 3) ;; *) usage ;; esac
image=$1 wanted=$2 delay=${3:-15}
case $image in /*) ;; *) usage ;; esac
case $image in *[!A-Za-z0-9._/+-]*) echo "the path of the image has letters, digits, '.', '_', '+', '-' and '/' only" >&2; exit 2 ;; esac
[ ${#wanted} -eq 64 ] || usage
case $wanted in *[!0-9a-fA-F]*) usage ;; esac
case $delay in '' | *[!0-9]* | ??????*) echo "SECONDS is a whole number" >&2; exit 2 ;; esac

for tool in sysupgrade sha256sum start-stop-daemon; do
    command -v "$tool" >/dev/null || { echo "there is no $tool here: this is for OpenWrt" >&2; exit 1; }
done
[ -f "$image" ] || { echo "there is no $image: poseidon push IMAGE NAME:$image" >&2; exit 1; }
lock=/var/run/firmware-upgrade.pid log=/var/run/firmware-upgrade.log
if [ -s "$lock" ] && kill -0 "$(cat "$lock")" 2>/dev/null; then
    echo "an upgrade is under way here" >&2
    exit 1
fi

# Outside of a job there is nobody to tell.
progress() { [ -z "${TRITON_JOB:-}" ] || triton progress "$@" || true; }

progress 10 "checking the image"
sum="$(echo "$wanted" | tr A-F a-f)  $image"
if [ "$(sha256sum "$image")" != "$sum" ]; then
    echo "$image has not the SHA-256 that was given: nothing was done" >&2
    exit 1
fi
progress 50 "asking sysupgrade"
sysupgrade -T "$image" || { echo "sysupgrade does not take $image for this device: nothing was done" >&2; exit 1; }

# Detached, since this job and the agent end on the way; and later, so that the job's end is told before. Another image may have come
# to the same place by then.
start-stop-daemon -S -b -m -p "$lock" -x /bin/sh -- -c "
    exec >$log 2>&1
    sleep $delay
    [ \"\$(sha256sum '$image')\" = '$sum' ] || { echo 'another image lies there by now: nothing was done'; exit 1; }
    sysupgrade '$image'"
progress 100 "begins in $delay s"
echo "the image is right; sysupgrade begins in $delay s"
