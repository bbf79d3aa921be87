#!/bin/sh
# Opens a way to this device's SSH port on another machine, for as long as the job runs.
# Usage: ssh-tunnel.sh USER@HOST PORT REMOTE_PORT [SECONDS]     an hour unless given; 'poseidon cancel JOB' ends it sooner
# Then, on HOST: ssh -p REMOTE_PORT root@localhost
# Needs: an SSH server here on port 22 (SSH_PORT says otherwise), ssh or dbclient (dropbear) here, and two values:
#     poseidon data put NAME ssh/tunnel-key key --secret     a private key, without passphrase, in the format of the client here
#     poseidon data put NAME ssh/tunnel-host host.pub        HOST's line for known_hosts, as ssh-keyscan prints it
# On HOST let that key do no more than this, in authorized_keys: restrict,port-forwarding,permitlisten="localhost:REMOTE_PORT" …
set -eu
umask 077

to=${1:-} port=${2:-} remote=${3:-} seconds=${4:-3600} local=${SSH_PORT:-22}
case $to in -* | *[!A-Za-z0-9.:@_-]* | '') to= ;; *@*) ;; *) to= ;; esac
for number in "$port" "$remote" "$seconds" "$local"; do case $number in '' | *[!0-9]*) to= ;; esac; done
[ -n "$to" ] || { echo "usage: ssh-tunnel.sh USER@HOST PORT REMOTE_PORT [SECONDS]" >&2; exit 2; }

# Where files are in memory, the key never reaches the flash.
folder=$(mktemp -d "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)/tunnel.XXXXXX")
child=
finish() { [ -z "$child" ] || kill "$child" 2>/dev/null || true; rm -rf "$folder"; }
trap finish EXIT
trap 'exit 143' TERM INT HUP

triton get ssh/tunnel-key --to "$folder/key"
if command -v ssh >/dev/null && ssh -V 2>&1 | grep -q OpenSSH; then
    triton get ssh/tunnel-host --to "$folder/known_hosts"
    ssh -N -T -i "$folder/key" -p "$port" -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes \
        -o UserKnownHostsFile="$folder/known_hosts" -o ExitOnForwardFailure=yes -o ServerAliveInterval=30 \
        -R "localhost:$remote:localhost:$local" -- "$to" &
elif command -v dbclient >/dev/null; then
    # dbclient looks for known_hosts in the home folder only.
    mkdir "$folder/.ssh"
    triton get ssh/tunnel-host --to "$folder/.ssh/known_hosts"
    HOME=$folder dbclient -N -T -i "$folder/key" -p "$port" -K 30 -o ExitOnForwardFailure=yes \
        -R "localhost:$remote:localhost:$local" "$to" &
else
    echo "there is no ssh and no dbclient here: install openssh-client or dropbear" >&2
    exit 1
fi
child=$!
echo "tunnel: $to port $remote, for $seconds s"
# The shell waits for the first that ends: the client, which fails, or the time.
passed=0
while [ "$passed" -lt "$seconds" ]; do
    if ! kill -0 "$child" 2>/dev/null; then
        wait "$child" || { code=$?; child=; echo "the tunnel broke ($code)" >&2; exit 1; }
        child=
        exit 0
    fi
    sleep 1
    passed=$((passed + 1))
done
