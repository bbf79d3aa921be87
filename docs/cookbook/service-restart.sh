#!/bin/sh
# Restarts a service and makes sure that it runs: systemd, OpenWrt's procd, or an init script.
# Usage: service-restart.sh NAME [SECONDS]     SECONDS that it has to stay up, 3 unless given
# Needs: root. Not for triton itself: use 'poseidon restart NAME', which reports before it acts.
set -eu

name=${1:-} stay=${2:-3}
case $name in
    '' | -* | */* | *[!A-Za-z0-9.@_:-]*) echo "usage: service-restart.sh NAME [SECONDS]" >&2; exit 2 ;;
    triton | triton.service) echo "a job cannot restart the agent that it runs under: poseidon restart" >&2; exit 2 ;;
esac
case $stay in '' | *[!0-9]*) echo "SECONDS is a whole number" >&2; exit 2 ;; esac

if [ -d /run/systemd/system ]; then
    systemctl restart -- "$name"
    runs() { systemctl is-active --quiet -- "$name"; }
    why() { systemctl status --no-pager --lines=20 -- "$name" >&2 || true; }
elif [ -x "/etc/init.d/$name" ]; then
    "/etc/init.d/$name" restart
    if grep -q rc.common "/etc/init.d/$name"; then
        runs() { "/etc/init.d/$name" running; }
    else
        runs() { "/etc/init.d/$name" status >/dev/null; }
    fi
    why() { logread -e "$name" -l 20 >&2 2>/dev/null || true; }
else
    echo "there is no service '$name' here" >&2
    exit 1
fi

# One that crashes at once was started successfully, too.
sleep "$stay"
if ! runs; then
    echo "$name was restarted and does not run ${stay} s later" >&2
    why
    exit 1
fi
echo "$name runs"
