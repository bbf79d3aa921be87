#!/usr/bin/env bash
# Runs the cookbook's scripts by busybox ash and by dash, as root, in mount and network namespaces of its own: nothing of this machine
# is changed. Needs: busybox, dash, dpkg (its start-stop-daemon), dropbear-bin, openssh-client, util-linux, iproute2.
# shellcheck disable=SC2016,SC2115 # Bodies of stand-ins are for another shell; the folders are made below.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || { echo "test.sh: root makes the namespaces: sudo $0" >&2; exit 1; }
    for tool in busybox dash start-stop-daemon dropbear dropbearkey dbclient ssh ssh-keygen unshare ip; do
        command -v "$tool" >/dev/null || { echo "test.sh: there is no $tool: apt-get install busybox-static dash dropbear-bin openssh-client util-linux iproute2" >&2; exit 1; }
    done
    exec unshare --mount --net --pid --fork --mount-proc "$here/test.sh" inside
fi
mount --make-rprivate /
ip link set lo up

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin=$work/bin values=$work/values log=$work/log
mkdir "$bin" "$values"
passed=0
say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*" >&2; sed 's/^/    /' "$work/out" >&2 2>/dev/null || true; exit 1; }

# Stands for the agent's command.
cat >"$bin/triton" <<EOF
#!/bin/sh
case \$1 in
    progress) echo "progress \$*" >>"$log" ;;
    get)
        [ -e "$values/\$2" ] || { echo "not-found" >&2; exit 1; }
        if [ "\${3:-}" = --to ]; then cat "$values/\$2" >"\$4"; chmod 600 "\$4"; else cat "$values/\$2"; fi ;;
    *) exit 2 ;;
esac
EOF
chmod +x "$bin/triton"
value() { mkdir -p "$(dirname "$values/$1")"; cat >"$values/$1"; }
# stub NAME BODY: a command that notes its words, then does BODY.
stub() { printf '#!/bin/sh\necho "%s $*" >>"%s"\n%s\n' "$1" "$log" "${2:-}" >"$bin/$1"; chmod +x "$bin/$1"; }

# run WANTED SCRIPT WORD…: by the shell under test; WANTED is its exit code.
run() {
    local wanted=$1 script=$2 code=0
    shift 2
    PATH=$bin:$path $shell "$here/$script" "$@" >"$work/out" 2>&1 </dev/null || code=$?
    [ "$code" = "$wanted" ] || fail "$script $* ended with $code instead of $wanted ($shell)"
    passed=$((passed + 1))
}
said() { grep -qF -- "$1" "$work/out" || fail "it does not say '$1'"; }
noted() { grep -qxF -- "$1" "$log" || { cat "$log" >&2; fail "'$1' was not called"; }; }

packages() {
    # Without the real ones in PATH.
    local path=$work/few
    for name in '-y' 'a b' 'a;reboot' '$(reboot)' '../x'; do run 2 package-install.sh "$name"; done
    run 2 package-install.sh
    run 1 package-install.sh tcpdump
    said 'no apk, opkg or apt-get'
    for manager in apt-get opkg apk; do
        : >"$log"
        stub "$manager"
        TRITON_JOB=job run 0 package-install.sh tcpdump libpcap1
        case $manager in
            apk) noted 'apk update'; noted 'apk add tcpdump libpcap1' ;;
            opkg) noted 'opkg update'; noted 'opkg install tcpdump libpcap1' ;;
            apt-get) noted 'apt-get install -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold tcpdump libpcap1' ;;
        esac
        noted 'progress progress 100 installed'
    done
    stub apk 'case $1 in add) exit 3 ;; esac'
    run 3 package-install.sh tcpdump
    rm "$bin/apk" "$bin/opkg" "$bin/apt-get"
}

services() {
    local path=$PATH
    for name in '' -h ../x 'a b'; do run 2 service-restart.sh "$name"; done
    run 2 service-restart.sh triton
    run 2 service-restart.sh x soon
    mount -t tmpfs none /run
    mount -t tmpfs none /etc/init.d
    run 1 service-restart.sh nothing
    said "no service 'nothing'"
    # procd: what a service says is what its processes do.
    printf '#!/bin/sh /etc/rc.common\n' >"$work/rc"
    cat >/etc/init.d/good <<EOF
#!/bin/sh
# rc.common
echo "good \$1" >>"$log"
EOF
    sed 's/good/bad/; $a case $1 in running) exit 1 ;; esac' /etc/init.d/good >/etc/init.d/bad
    chmod +x /etc/init.d/good /etc/init.d/bad
    : >"$log"
    run 0 service-restart.sh good 0
    noted 'good restart'
    noted 'good running'
    run 1 service-restart.sh bad 0
    said 'does not run'
    mkdir -p /run/systemd/system
    stub systemctl 'case $1 in is-active) [ "$4" = good ] ;; esac'
    : >"$log"
    run 0 service-restart.sh good 0
    noted 'systemctl restart -- good'
    run 1 service-restart.sh bad 0
    rm "$bin/systemctl"
    umount /run /etc/init.d
}

keys() {
    local path=$PATH home=$work/home/pi file=$work/home/pi/.ssh/authorized_keys
    mkdir -p "$home"
    { cat /etc/passwd; echo "pi:x:12345:12345::$home:/bin/sh"; } >"$work/passwd"
    mount --bind "$work/passwd" /etc/passwd
    for name in old new other; do ssh-keygen -q -t ed25519 -N '' -C "$name key" -f "$work/$name"; done
    for name in '' -x 'a b' '../pi'; do run 2 ssh-key-rotate.sh "$name"; done
    run 1 ssh-key-rotate.sh nobody-here
    rm -rf "$values/ssh"
    run 1 ssh-key-rotate.sh pi
    echo 'no key' | value ssh/new-key
    run 1 ssh-key-rotate.sh pi
    said 'no public key'
    [ ! -e "$file" ] || fail "a wrong key leaves something"
    mkdir -p "$home/.ssh"
    { cat "$work/old.pub"; printf 'command="/bin/true",no-pty '; cat "$work/other.pub"; } >"$file"
    value ssh/new-key <"$work/new.pub"
    run 0 ssh-key-rotate.sh pi
    run 0 ssh-key-rotate.sh pi
    [ "$(wc -l <"$file")" = 3 ] || fail "adding a key twice"
    value ssh/old-key <"$work/old.pub"
    run 0 ssh-key-rotate.sh pi
    ! grep -q 'old key' "$file" || fail "the old key is still there"
    grep -q '^command="/bin/true",no-pty ssh-ed25519 .* other key$' "$file" || fail "another key is gone"
    grep -q 'new key' "$file" || fail "the new key is not there"
    [ "$(stat -c '%a %u' "$file")" = '600 12345' ] || fail "mode and owner: $(stat -c '%a %u' "$file")"
    value ssh/old-key <"$work/new.pub"
    run 1 ssh-key-rotate.sh pi
    umount /etc/passwd
    rm -rf "$work/home" "$values/ssh" "$work"/{old,new,other}{,.pub}
}

# listens PORT: whether somebody does.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
wait_for() { for _ in $(seq 100); do ! "$@" || return 0; sleep 0.1; done; fail "in vain: $*"; }

tunnel() {
    local path=$PATH child
    for words in '' 'jump 22 20022' 'a@b x 20022' '-oProxyCommand=x@y 22 20022' 'a@b 22 20022 soon'; do
        # shellcheck disable=SC2086 # Words.
        run 2 ssh-tunnel.sh $words
    done
    # The other machine and the device are both here; its keys are not this machine's.
    mkdir -p /root/.ssh
    mount -t tmpfs none /root/.ssh
    chmod 700 /root/.ssh
    dropbearkey -t ed25519 -f "$work/host" >/dev/null 2>&1
    dropbearkey -y -f "$work/host" | grep ^ssh- >"$work/host.pub"
    case $1 in
        ssh)
            ssh-keygen -q -t ed25519 -N '' -f "$work/key"
            cat "$work/key.pub" >/root/.ssh/authorized_keys
            printf '[127.0.0.1]:2222 %s\n' "$(cut -d' ' -f1,2 "$work/host.pub")" | value ssh/tunnel-host
            ;;
        dbclient)
            dropbearkey -t ed25519 -f "$work/key" 2>/dev/null | grep ^ssh- >/root/.ssh/authorized_keys
            printf '127.0.0.1 %s\n' "$(cut -d' ' -f1,2 "$work/host.pub")" | value ssh/tunnel-host
            # As on a router: without OpenSSH.
            path=$work/few
            ;;
    esac
    chmod 600 /root/.ssh/authorized_keys
    value ssh/tunnel-key <"$work/key"
    dropbear -F -E -s -r "$work/host" -p 127.0.0.1:2222 -P "$work/pid1" >"$work/server" 2>&1 &
    local server=$!
    dropbear -F -E -s -r "$work/host" -p 127.0.0.1:2223 -P "$work/pid2" >/dev/null 2>&1 &
    local device=$!
    wait_for listens 2222
    wait_for listens 2223
    SSH_PORT=2223 PATH=$bin:$path $shell "$here/ssh-tunnel.sh" root@127.0.0.1 2222 20022 >"$work/out" 2>&1 </dev/null &
    child=$!
    wait_for listens 20022
    local banner
    IFS= read -r -t 10 banner <>/dev/tcp/127.0.0.1/20022 || true
    case $banner in SSH-2.0-dropbear*) ;; *) fail "behind the tunnel is no SSH server: $banner" ;; esac
    # As a cancel does it.
    kill -TERM "$child"
    local code=0
    wait "$child" || code=$?
    [ "$code" = 143 ] || fail "a cancelled tunnel ends with $code"
    gone() { ! listens 20022; }
    wait_for gone
    ! compgen -G '/dev/shm/tunnel.*' >/dev/null || fail "the key is left behind"
    # Its time is up.
    SSH_PORT=2223 run 0 ssh-tunnel.sh root@127.0.0.1 2222 20022 2
    # A host that is not the one it was.
    sed 's/AAAA[^ ]\{10\}/AAAAC3NzaC1lZD/; s/.\{6\}$/AAAAAA/' "$values/ssh/tunnel-host" >"$work/wrong"
    value ssh/tunnel-host <"$work/wrong"
    SSH_PORT=2223 run 1 ssh-tunnel.sh root@127.0.0.1 2222 20022 20
    kill "$server" "$device"
    wait "$server" "$device" 2>/dev/null || true
    umount /root/.ssh
    rm -rf "$values/ssh" "$work"/{host,key}{,.pub}
    passed=$((passed + 1))
}

backup() {
    local path=$PATH folder=$work/etc/config
    mkdir -p "$folder"
    echo "config system" >"$folder/system"
    echo "secret" >"$folder/wireless"
    chmod 600 "$folder/wireless"
    run 1 config-backup.sh "$work/archive" "$work/nothing"
    run 0 config-backup.sh "$work/archive" "$folder"
    [ "$(stat -c %a "$work/archive")" = 600 ] || fail "others may read the archive"
    echo changed >"$folder/system"
    echo new >"$folder/new"
    : >"$log"
    stub reload_config
    run 0 config-restore.sh "$work/archive" "$folder"
    noted 'reload_config '
    [ "$(cat "$folder/system")" = 'config system' ] || fail "it is not as it was"
    [ ! -e "$folder/new" ] || fail "what is new is still there"
    [ "$(stat -c %a "$folder/wireless")" = 600 ] || fail "modes are lost"
    [ "$(cat "$folder.before/system")" = changed ] || fail "what was there is not kept"
    # Archives that nobody should trust.
    mkdir "$work/evil"
    ln -s /etc/passwd "$work/evil/system"
    tar -C "$work/evil" -czf "$work/links" .
    tar -C "$work/evil" -czPf "$work/out-of-it" --transform 's#.*#../../x#' system
    head -c 100 "$work/archive" >"$work/torn"
    for archive in links out-of-it torn nothing; do
        run 1 config-restore.sh "$work/$archive" "$folder"
        [ "$(cat "$folder/system")" = 'config system' ] || fail "$archive has changed something"
    done
    for place in config / /etc ''; do [ -z "$place" ] || run 2 config-restore.sh "$work/archive" "$place"; done
    ! compgen -G "$folder.new-*" >/dev/null || fail "something is left behind"
    rm -rf "$work/etc" "$work/evil" "$bin/reload_config"
}

firmware() {
    local path=$PATH image=$work/new.bin sum
    echo "an image" >"$image"
    sum=$(sha256sum "$image")
    sum=${sum%% *}
    mount -t tmpfs none /run
    run 2 firmware-upgrade.sh
    run 2 firmware-upgrade.sh "$image" "$sum"
    said 'does not come back'
    run 2 firmware-upgrade.sh --image-has-triton "$image"
    run 2 firmware-upgrade.sh --image-has-triton "$image" "${sum%?}"
    run 2 firmware-upgrade.sh --image-has-triton "$image" "${sum%?}x"
    run 2 firmware-upgrade.sh --image-has-triton new.bin "$sum"
    run 2 firmware-upgrade.sh --image-has-triton "$image'; reboot" "$sum"
    run 2 firmware-upgrade.sh --image-has-triton "$image" "$sum" soon
    run 1 firmware-upgrade.sh --image-has-triton "$image" "$sum"
    said 'this is for OpenWrt'
    : >"$log"
    stub sysupgrade 'case $1 in -T) ! grep -q wrong "$2" ;; esac'
    run 1 firmware-upgrade.sh --image-has-triton "$work/none.bin" "$sum"
    said 'poseidon push'
    echo wrong >>"$image"
    run 1 firmware-upgrade.sh --image-has-triton "$image" "$sum"
    said 'has not the SHA-256'
    [ ! -s "$log" ] || fail "sysupgrade was called for an image that is not the one"
    local other
    other=$(sha256sum "$image")
    run 1 firmware-upgrade.sh --image-has-triton "$image" "${other%% *}"
    said 'does not take'
    echo "an image" >"$image"
    # It says its end before it begins, and only one is under way.
    begun() { grep -qxF "sysupgrade $image" "$log"; }
    TRITON_JOB=job run 0 firmware-upgrade.sh --image-has-triton "$image" "$(echo "$sum" | tr a-f A-F)" 2
    noted "sysupgrade -T $image"
    noted 'progress progress 100 begins in 2 s'
    ! begun || fail "it began while the job ran"
    run 1 firmware-upgrade.sh --image-has-triton "$image" "$sum"
    said 'under way'
    wait_for begun
    # What lies there when the time has come is another one.
    over() { ! kill -0 "$(cat /run/firmware-upgrade.pid)" 2>/dev/null; }
    wait_for over
    : >"$log"
    run 0 firmware-upgrade.sh --image-has-triton "$image" "$sum" 1
    echo another >"$image"
    wait_for over
    ! begun || fail "an image that was exchanged is used"
    grep -q 'another image' /run/firmware-upgrade.log || fail "nothing tells why"
    rm "$bin/sysupgrade" "$image"
    umount /run
}

# A PATH with little in it: busybox, and dropbear's client.
mkdir "$work/few"
for tool in sh cat mkdir mktemp rm kill sleep grep chmod sed awk; do ln -s "$(command -v busybox)" "$work/few/$tool"; done
ln -s "$(command -v dbclient)" "$work/few/dbclient"
for shell in "busybox ash" dash; do
    set -f
    shell="$(command -v "${shell%% *}")${shell#"${shell%% *}"}"
    set +f
    packages
    services
    keys
    tunnel ssh
    tunnel dbclient
    backup
    firmware
done
say "cookbook: $passed runs of its scripts, all as they should"
