#!/usr/bin/env bash
# The .deb packages on a real Debian with a real systemd: systemd/test.sh [amd64] [arm64] [armhf]
#
# Builds them, installs those of this machine's processor in a container of namespaces (see test/container.sh) and has
# systemd start, watch, reload, restart, upgrade and remove them; of others it looks at the content and runs the program
# under qemu. Needs root. The first run makes a Debian with debootstrap, in a cache outside the checkout.
#
#   DEBS=DIR   packages that systemd/build-debs.sh has built, in place of building them
set -euo pipefail
here=$(dirname "$(realpath "$0")")
cd "$here/.."

die() { echo "test.sh: $*" >&2; exit 1; }
need() { command -v "$1" > /dev/null || die "$1 is missing: apt-get install $2"; }
[ "$(id -u)" = 0 ] || die "it makes namespaces and mounts: run it as root"
need debootstrap debootstrap
need gpgv gpgv
need flock util-linux
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || die "$keyring is missing: apt-get install debian-archive-keyring"
need dpkg-deb dpkg
need lintian lintian
need nsenter util-linux
need script bsdutils
need ip iproute2
need openssl openssl

# shellcheck source=systemd/test/container.sh
. "$here/test/container.sh"

native=$(dpkg --print-architecture)
[ $# -gt 0 ] || set -- "$native"

work=$(mktemp -d /var/tmp/triton-test.XXXXXX)
clean() {
    local code=$?
    # A second Ctrl-C does not stop the cleaning.
    trap '' INT TERM HUP
    if [ $code -ne 0 ] && [ -n "$container_pid" ]; then
        echo "--- the end of the container's journal" >&2
        inside journalctl --no-pager -n 60 >&2 || true
    fi
    container_stop
    rm -rf --one-file-system "$work"
    [ $code = 0 ] || echo "FAILED: $step" >&2
}
trap clean EXIT
trap 'exit 143' TERM HUP
trap 'exit 130' INT

checks=0
step() { step=$*; printf '=== %s (%s s)\n' "$*" "$SECONDS"; }
fail() { die "$step: $*"; }
# ok WHAT COMMAND...
ok() {
    local what=$1 output
    shift
    output=$("$@" 2>&1) || fail "$what: '$*' fails: $output"
    checks=$((checks + 1))
}
not() { ! "$@"; }
# is WHAT EXPECTED ACTUAL
is() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
    checks=$((checks + 1))
}
# holds WHAT TEXT PIECE
holds() {
    case $2 in *"$3"*) checks=$((checks + 1)) ;; *) fail "$1: no '$3' in '$2'" ;; esac
}
# Asks until it is so, a minute at most.
eventually() {
    local what=$1 tries=0
    shift
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "$what: never '$*'"
        sleep 0.2
    done
    checks=$((checks + 1))
}
prop() { inside systemctl show --property="$2" --value "$1.service"; }
main_is() { [ "$(prop "$1" MainPID)" = "$2" ]; }
main_is_new() { local pid; pid=$(prop "$1" MainPID); [ "$pid" != 0 ] && [ "$pid" != "$2" ] && [ "$(prop "$1" ActiveState)" = active ]; }
status_holds() { case $(prop "$1" StatusText) in *"$2"*) ;; *) return 1 ;; esac; }
dropin() { inside mkdir -p "/etc/systemd/system/$1.service.d"; inside tee "/etc/systemd/system/$1.service.d/$2.conf" > /dev/null; inside systemctl daemon-reload; }
no_dropin() { inside rm "/etc/systemd/system/$1.service.d/$2.conf"; inside systemctl daemon-reload; }
# A process of the container whose arguments are these words.
runs() { inside pgrep -f -x "$1"; }

step "packages"
debs=${DEBS:-}
if [ -z "$debs" ]; then
    debs=$work/debs
    OUT=$debs POSEIDON_PROFILE=${POSEIDON_PROFILE:-dev} systemd/build-debs.sh "$@" poseidon
fi
one() {
    local found
    found=$(ls "$debs/$1"_*_"$2.deb")
    [ "$(wc -l <<< "$found")" = 1 ] || die "more than one package of $1 for $2 in $debs"
    echo "$found"
}

step "lintian"
for package in "$@"; do
    lintian --fail-on error --tag-display-limit 0 "$(one triton "$package")" || fail "lintian has errors"
done
lintian --fail-on error --tag-display-limit 0 "$(one poseidon "$native")" || fail "lintian has errors"

for package in "$@"; do
    step "content of $package"
    deb=$(one triton "$package")
    is "its architecture" "$package" "$(dpkg-deb --field "$deb" Architecture)"
    is "its conffiles" /etc/triton/triton.toml "$(dpkg-deb --info "$deb" conffiles)"
    dpkg-deb --extract "$deb" "$work/$package"
    is "mode of the configuration" 600 "$(stat -c %a "$work/$package/etc/triton/triton.toml")"
    program=$work/$package/usr/bin/triton
    case $package in
        amd64) machine="Advanced Micro Devices X86-64" emulator=qemu-x86_64-static ;;
        arm64) machine=AArch64 emulator=qemu-aarch64-static ;;
        armhf) machine=ARM emulator=qemu-arm-static ;;
        *) die "unknown architecture $package" ;;
    esac
    holds "its processor" "$(readelf -h "$program")" "$machine"
    if [ "$package" = "$native" ]; then emulator='env'; else need $emulator qemu-user-static; fi
    is "its version" "triton $(dpkg-deb --field "$deb" Version | sed 's/-[^-]*$//')" "$($emulator "$program" --version)"
    ok "its configuration is right" $emulator "$program" check-config --config "$work/$package/etc/triton/triton.toml"
done
case " $* " in
    *" $native "*) ;;
    *)
        echo "$checks checks passed, none of them with systemd: $native was not asked for"
        exit 0
        ;;
esac

step "a Debian"
suite=bookworm
cache=${TRITON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/triton}
image=$cache/debian-$suite-$native-1
mkdir -p "$cache"
# Two runs do not make it at once.
exec 9> "$image.lock"
flock 9
if ! [ -d "$image" ]; then
    rm -rf --one-file-system "$image.new"
    debootstrap --force-check-gpg --keyring=$keyring --variant=minbase \
        --include=systemd,systemd-sysv,dbus,procps "$suite" "$image.new" \
        > "$work/debootstrap.log" 2>&1 || die "debootstrap fails: $(tail -n 5 "$work/debootstrap.log")"
    rm -rf "$image.new/var/cache/apt/archives/"*.deb
    mv "$image.new" "$image"
fi
exec 9>&-

# What is installed: this version, and another for upgrades.
mkdir "$work/seen"
cp "$(one triton "$native")" "$work/seen/triton.deb"
cp "$(one poseidon "$native")" "$work/seen/poseidon.deb"
dpkg-deb --raw-extract "$work/seen/triton.deb" "$work/newer"
sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control"
# With another configuration file, so that dpkg has something to ask about.
echo '# A newer version.' >> "$work/newer/etc/triton/triton.toml"
dpkg-deb --build --root-owner-group "$work/newer" "$work/seen/newer.deb" > /dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$work/seen/key.pem" -out "$work/seen/cert.pem" 2> "$work/openssl.log" \
    || die "openssl: $(cat "$work/openssl.log")"

step "boot"
container_start "$image" "$work/container" "$work/seen"

step "install: enabled, started, offline"
ok "it installs" inside dpkg -i /debs/triton.deb
is "it is active" active "$(prop triton ActiveState)"
is "it is enabled" enabled "$(inside systemctl is-enabled triton.service)"
is "its type" notify "$(prop triton Type)"
is "its watchdog" 2min "$(prop triton WatchdogUSec)"
ok "it leaves no core dumps" inside grep -qE '^Max core file size +0 ' "/proc/$(prop triton MainPID)/limits"
holds "its status" "$(prop triton StatusText)" "working offline"
is "mode of the state folder" "700 root:root" "$(inside stat -c '%a %U:%G' /var/lib/triton)"
is "mode of the configuration" "600 root:root" "$(inside stat -c '%a %U:%G' /etc/triton/triton.toml)"
ok "the group is there" inside getent group triton
ok "the command works" inside triton status
is "a job runs as root" 0 "$(inside triton exec -- id -u)"
ok "a job gets no socket of systemd's" not inside triton exec --shell 'env | grep -E "NOTIFY|WATCHDOG|INVOCATION"'
instance=$(inside cat /var/lib/triton/instance)
holds "levels reach the journal" "$(inside journalctl -u triton -p info --no-pager)" "triton "
ok "no line of the start is an error" not inside journalctl -u triton -p err --no-pager --quiet --grep .

step "units"
ok "systemd-analyze verify" inside systemd-analyze verify --man=no triton.service
is "and has nothing to say" "" "$(inside systemd-analyze verify --man=no triton.service 2>&1)"
units=/usr/lib/systemd/system
ok "exposure of triton.service" inside systemd-analyze security --offline=yes --threshold=96 $units/triton.service
inside mkdir -p /tmp/monitor/triton.service.d
inside cp $units/triton.service /tmp/monitor
inside cp /usr/share/doc/triton/examples/monitor-only.conf /tmp/monitor/triton.service.d
ok "exposure of the monitor-only agent" \
    inside systemd-analyze security --offline=yes --threshold=14 /tmp/monitor/triton.service

step "reload"
main=$(prop triton MainPID)
echo 'url = 7' | inside tee /etc/triton/triton.toml > /dev/null
ok "one of a wrong configuration fails" not inside systemctl reload triton
is "the agent goes on" "$main" "$(prop triton MainPID)"
inside systemctl kill --signal=HUP triton
eventually "and says what is wrong when told by a signal" status_holds triton "is not in force"
echo 'log = "info"' | inside tee /etc/triton/triton.toml > /dev/null
ok "one of a right configuration" inside systemctl reload triton
is "keeps the process" "$main" "$(prop triton MainPID)"
eventually "and clears the status" not status_holds triton "is not in force"

step "kill -9 under a job"
printf '[Service]\nRestartSec=1\n' | dropin triton test
inside triton exec -- sleep 4711 > /dev/null 2>&1 &
eventually "the job runs" runs "sleep 4711"
inside systemctl kill --kill-who=main --signal=KILL triton
eventually "it is started again" main_is_new triton "$main"
ok "nothing is left of the job" not runs "sleep 4711"
eventually "the history knows of it" inside sh -c 'triton history | grep -q interrupted'
is "the instance is the same" "$instance" "$(inside cat /var/lib/triton/instance)"

step "watchdog"
printf '[Service]\nRestartSec=1\nWatchdogSec=2\n' | dropin triton test
inside systemctl restart triton
main=$(prop triton MainPID)
inside triton exec -- sleep 4712 > /dev/null 2>&1 &
eventually "the job runs" runs "sleep 4712"
# Three periods: who feeds it lives through them.
sleep 6
is "a living agent with a job stays" "$main" "$(prop triton MainPID)"
inside kill -STOP "$main"
eventually "a stopped one is started again" main_is_new triton "$main"
holds "by the watchdog" "$(inside journalctl -u triton --no-pager)" "Watchdog timeout"
ok "nothing is left of the job" not runs "sleep 4712"

step "a job that runs out of memory"
printf '[Service]\nMemoryMax=64M\nMemorySwapMax=0\n' | dropin triton test
inside systemctl restart triton
main=$(prop triton MainPID)
code=0
inside timeout 60 triton exec -- tail /dev/zero > /dev/null 2>&1 || code=$?
is "the job was killed" 137 "$code"
is "the agent was not" "$main" "$(prop triton MainPID)"
is "and takes the next job" fine "$(inside triton exec -- echo fine)"

step "stop under a job that does not want to end"
inside triton exec --shell 'trap "" TERM; while :; do sleep 4713; done' > /dev/null 2>&1 &
eventually "the job runs" runs "sleep 4713"
begun=$SECONDS
ok "it stops" inside systemctl stop triton
[ $((SECONDS - begun)) -le 12 ] || fail "it took $((SECONDS - begun)) s"
is "in order" success "$(prop triton Result)"
ok "nothing is left of the job" not runs "sleep 4713"
ok "the socket is gone" not inside test -e /run/triton
no_dropin triton test
inside systemctl start triton

step "poseidon: an own user, a sandbox"
ok "it installs" inside dpkg -i /debs/poseidon.deb
is "it is active" active "$(prop poseidon ActiveState)"
is "it is enabled" enabled "$(inside systemctl is-enabled poseidon.service)"
holds "its status" "$(prop poseidon StatusText)" "listens on http://127.0.0.1:8787"
is "systemd-analyze verify has nothing to say" "" "$(inside systemd-analyze verify --man=no poseidon.service 2>&1)"
ok "exposure of poseidon.service" inside systemd-analyze security --offline=yes --threshold=12 $units/poseidon.service
main=$(prop poseidon MainPID)
ok "it does not run as root" not inside sh -c "grep -q '^Uid:.0' /proc/$main/status"
is "it has no rights" 0000000000000000 "$(inside sed -n 's/^CapEff:.//p' "/proc/$main/status")"
is "only root sees its data" 700 "$(inside stat -c %a /var/lib/private/poseidon)"
ok "nothing in its log is a warning" not inside journalctl -u poseidon --no-pager --quiet --grep 'WARN|ERROR|Failed'

step "agent and Poseidon"
central() { inside poseidon --data /var/lib/poseidon "$@"; }
echo 'url = "ws://127.0.0.1:8787"' | inside tee /etc/triton/triton.toml > /dev/null
inside systemctl reload triton
fingerprint=$(inside triton identifier --fingerprint)
pends() { central pending | grep -q "$fingerprint"; }
eventually "it asks to be let in" pends
ok "it is let in" central approve "$fingerprint" --name attic
inside systemctl reload triton
eventually "it connects" status_holds triton "connected to ws://127.0.0.1:8787"
is "a command runs on it" 0 "$(central run attic -- id -u)"

step "poseidon: watchdog"
printf '[Service]\nRestartSec=1\nWatchdogSec=2\n' | dropin poseidon test
inside systemctl restart poseidon
main=$(prop poseidon MainPID)
sleep 5
is "a living one stays" "$main" "$(prop poseidon MainPID)"
inside kill -STOP "$main"
eventually "a stopped one is started again" main_is_new poseidon "$main"
no_dropin poseidon test
inside systemctl restart poseidon
inside systemctl reload triton
eventually "the agent is back" status_holds triton "connected to"
is "and still registered" 0 "$(central run attic -- id -u)"

step "poseidon: a certificate as a credential"
live=/etc/letsencrypt/live/poseidon.example.com
inside mkdir -p $live
inside install -m 600 /debs/key.pem $live/privkey.pem
inside install -m 600 /debs/cert.pem $live/fullchain.pem
inside cat /usr/share/doc/poseidon/examples/poseidon-tls.conf | dropin poseidon tls
ok "it starts" inside systemctl restart poseidon
holds "its status" "$(prop poseidon StatusText)" "listens on https://[::]:8787"
pin=sha256//$(openssl x509 -in "$work/seen/cert.pem" -noout -pubkey | openssl pkey -pubin -outform der \
    | openssl dgst -sha256 -binary | openssl base64)
printf 'url = "wss://localhost:8787"\n[tls]\npins = ["%s"]\n' "$pin" | inside tee /etc/triton/triton.toml > /dev/null
inside systemctl reload triton
eventually "the agent connects by TLS" status_holds triton "connected to wss://localhost:8787"
no_dropin poseidon tls
inside systemctl restart poseidon
echo 'url = "ws://127.0.0.1:8787"' | inside tee /etc/triton/triton.toml > /dev/null
inside systemctl reload triton
eventually "and plain again" status_holds triton "connected to ws://"

step "an upgrade by a job of the agent itself"
main=$(prop triton MainPID)
options=(-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)
holds "docs/systemd.md says how" "$(< docs/systemd.md)" "apt-get install -y ${options[*]} triton"
upgraded=$(central run attic -- apt-get install -y "${options[@]}" /debs/newer.deb) || fail "the job fails: $upgraded"
holds "it ends well" "$upgraded" "Setting up triton"
# shellcheck disable=SC2016
is "the package is whole" "ii " "$(inside dpkg-query -W -f '${db:Status-Abbrev}' triton)"
eventually "then the agent is started anew" main_is_new triton "$main"
eventually "and connects" status_holds triton "connected to ws://"
is "the instance is the same" "$instance" "$(inside cat /var/lib/triton/instance)"
is "so is the configuration" 'url = "ws://127.0.0.1:8787"' "$(inside cat /etc/triton/triton.toml)"
ok "dpkg had something to ask" inside test -e /etc/triton/triton.toml.dpkg-dist
ok "and the unit that restarted it is gone" not inside systemctl is-failed triton-restart.service

step "an ordinary upgrade"
main=$(prop triton MainPID)
inside systemctl disable triton 2> /dev/null
ok "it installs" inside dpkg --force-confold -i /debs/triton.deb
ok "the agent is a new process" main_is_new triton "$main"
ok "who disabled it finds it so" not inside systemctl is-enabled triton
is "the instance is the same" "$instance" "$(inside cat /var/lib/triton/instance)"
inside systemctl enable triton 2> /dev/null

step "an upgrade with a configuration that is wrong"
main=$(prop triton MainPID)
right=$(inside cat /etc/triton/triton.toml)
echo 'url = 7' | inside tee /etc/triton/triton.toml > /dev/null
said=$(inside dpkg --force-confold -i /debs/newer.deb 2>&1) || fail "it does not install: $said"
holds "it says why" "$said" "/etc/triton/triton.toml"
holds "and what it did" "$said" "NOT restarted"
is "the agent goes on" "$main" "$(prop triton MainPID)"
holds "connected" "$(prop triton StatusText)" "connected to ws://"
# The same by a job.
said=$(central run attic -- dpkg --force-confold -i /debs/triton.deb 2>&1) || fail "the job fails: $said"
holds "a job says it too" "$said" "NOT restarted"
ok "and leaves no unit that would do it" not inside systemctl is-active triton-restart.service
is "and the agent goes on" "$main" "$(prop triton MainPID)"
# What is wrong may be a variable of the service.
echo "$right" | inside tee /etc/triton/triton.toml > /dev/null
echo 'TRITON_LOG=loud' | inside tee /etc/default/triton > /dev/null
said=$(inside dpkg -i --force-confold /debs/newer.deb 2>&1) || fail "it does not install: $said"
holds "so is a variable" "$said" "NOT restarted"
is "and the agent goes on" "$main" "$(prop triton MainPID)"
inside rm /etc/default/triton
ok "mended, it installs" inside dpkg --force-confold -i /debs/triton.deb
ok "and the agent is a new process" main_is_new triton "$main"

step "a journal in memory"
printf '%s\n[journal]\nfolder = "/run/triton/journal"\n' "$right" | inside tee /etc/triton/triton.toml > /dev/null
inside systemctl restart triton
inside triton exec -- true
ok "it is there" inside sh -c 'ls /run/triton/journal | grep -q .'
job=$(inside triton history | tail -n 1)
inside systemctl restart triton
[ -n "$job" ] || fail "the history is empty"
holds "it outlives a restart" "$(inside triton history)" "$job"
inside systemctl stop triton
ok "and no stop" not inside test -e /run/triton
echo "$right" | inside tee /etc/triton/triton.toml > /dev/null
inside systemctl start triton

step "the monitor-only agent"
inside sh -c 'printf "" > /etc/triton/triton.toml'
inside cat /usr/share/doc/triton/examples/monitor-only.conf | dropin triton monitor-only
ok "it starts" inside systemctl restart triton
ok "not as root" not inside sh -c "grep -q '^Uid:.0' /proc/$(prop triton MainPID)/status"
is "it looks" 1 "$(inside triton exec -- cat /proc/loadavg | wc -l)"
ok "it changes nothing" not inside triton exec -- touch /etc/touched /usr/touched /var/touched
ok "nothing at all" not inside sh -c 'ls /etc/touched /usr/touched /var/touched 2>/dev/null | grep .'
ok "it sees no secret of root's" not inside triton exec -- cat /etc/triton/triton.toml
is "it keeps its identity" "$instance" "$(inside cat /var/lib/triton/instance)"
no_dropin triton monitor-only
ok "and it is the ordinary one again" inside systemctl restart triton
is "with its identity" "$instance" "$(inside cat /var/lib/triton/instance)"
is "as root" 0 "$(inside triton exec -- id -u)"

step "remove and purge"
main=$(prop triton MainPID)
ok "it is removed" inside dpkg --remove triton
ok "it has ended" not inside test -d "/proc/$main"
ok "its program is gone" not inside test -e /usr/bin/triton
ok "its configuration stays" inside test -e /etc/triton/triton.toml
is "its state too" "$instance" "$(inside cat /var/lib/triton/instance)"
ok "it is purged" inside dpkg --purge triton
for left in /etc/triton /var/lib/triton /var/lib/private/triton /run/triton; do
    ok "$left is gone" not inside test -e "$left"
done
ok "the group is gone" not inside getent group triton
is "no unit is left" "" "$(inside sh -c 'find /etc/systemd /var/lib/systemd -name "*triton*" -not -name "triton.service.d"')"
ok "poseidon is purged" inside dpkg --purge poseidon
for left in /etc/default/poseidon /var/lib/poseidon /var/lib/private/poseidon; do
    ok "$left is gone" not inside test -e "$left"
done
ok "it can be installed again" inside dpkg -i /debs/triton.deb
is "as another device" different "$([ "$(inside cat /var/lib/triton/instance)" = "$instance" ] && echo same || echo different)"

echo "=== done ($SECONDS s)"
echo "$checks passed, 0 failed"
