# shellcheck shell=bash
# A Debian with a real systemd in namespaces, for test.sh, which sources this. Needs root, and no service on this
# machine: only namespaces, control groups and a folder of its own. Both layouts of control groups will do.
#
#   container_start IMAGE WORK DEBS   WORK/console.log says how it boots; DEBS is seen as /debs
#   inside COMMAND [ARG]...           run a command in it
#   container_stop

container_pid=
container_work=
container_script=
container_groups=()
container_init=$(dirname "$(realpath "${BASH_SOURCE[0]}")")/init.sh

# The folder of this process in each hierarchy of control groups, or the root of the only one.
container_folders() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo /sys/fs/cgroup
        return
    fi
    local names path mount
    while IFS=: read -r _ names path; do
        for mount in "/sys/fs/cgroup/${names#name=}" "/sys/fs/cgroup/unified"; do
            if [ -d "$mount" ] && { [ -n "$names" ] || [ "$mount" = /sys/fs/cgroup/unified ]; }; then
                echo "$mount${path%/}"
                break
            fi
        done
    done < /proc/self/cgroup
}

container_start() {
    # Not a local 'work': the caller's trap, when it runs in here, would see that in place of its own.
    local image=$1 debs=$3 folder group
    container_work=$2
    mkdir -p "$container_work"
    for folder in $(container_folders); do
        group=$folder/triton-test-$$
        mkdir "$group"
        container_groups+=("$group")
        if [ -e "$group/cpuset.cpus" ] && [ ! -e "$group/cgroup.controllers" ]; then
            cat "$folder/cpuset.cpus" > "$group/cpuset.cpus"
            cat "$folder/cpuset.mems" > "$group/cpuset.mems"
        fi
    done
    local starter="$container_work/start"
    {
        printf 'for group in'
        printf ' %q' "${container_groups[@]}"
        # shellcheck disable=SC2016
        printf '; do echo $$ > "$group/cgroup.procs"; done\necho $$ > %q\n' "$container_work/pid"
        printf 'exec unshare --mount --pid --fork --kill-child --net --uts --ipc --cgroup --propagation private'
        printf ' sh %q %q %q %q\n' "$container_init" "$image" "$container_work/mounts" "$debs"
    } > "$starter"
    mkdir -p "$container_work/mounts"
    # systemd wants a terminal for its console.
    script -qfc "sh $starter" "$container_work/console.log" < /dev/null > /dev/null 2>&1 &
    container_script=$!
    local tries=0 starter_pid
    until [ -n "$container_pid" ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || die "the container does not start: $(cat "$container_work/console.log")"
        sleep 0.05
        starter_pid=$(cat "$container_work/pid" 2> /dev/null) || continue
        container_pid=$(tr -d ' ' < "/proc/$starter_pid/task/$starter_pid/children" 2> /dev/null) || continue
    done
    tries=0
    # 'degraded' is a boot too: a container lacks this and that.
    until inside systemctl is-system-running 2> /dev/null | grep -qE '^(running|degraded)$'; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || die "systemd does not come up: $(cat "$container_work/console.log")"
        [ -d "/proc/$container_pid" ] || die "systemd ended: $(cat "$container_work/console.log")"
        sleep 0.2
    done
}

inside() {
    nsenter --target "$container_pid" --mount --pid --net --uts --ipc --cgroup --root --wd -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"
}

# Also for one whose start was interrupted: then container_pid is not known yet.
container_stop() {
    local tries=0 starter_pid group folder
    if [ -n "$container_script" ]; then
        # Its end ends the container's first process (--kill-child), and with that all others.
        if starter_pid=$(cat "$container_work/pid" 2> /dev/null) && [ -n "$starter_pid" ]; then
            kill -KILL "$starter_pid" 2> /dev/null || true
        fi
        # The terminal, and what has not come so far as to write its number.
        kill -TERM "$container_script" 2> /dev/null || true
        while { kill -0 "$container_script" || [ -d "/proc/${container_pid:-none}" ]; } 2> /dev/null && [ $tries -lt 200 ]; do
            tries=$((tries + 1))
            sleep 0.05
        done
        container_pid='' container_script=''
    fi
    for group in "${container_groups[@]}"; do
        # From the leaves on.
        find "$group" -depth -type d 2> /dev/null | while read -r folder; do rmdir "$folder" 2> /dev/null || true; done
    done
    container_groups=()
}
