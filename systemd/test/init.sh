#!/bin/sh
# The first process of a container: makes a root out of IMAGE and starts systemd in it. Called by container.sh in
# namespaces of its own, so all these mounts go when it ends.
set -eu
image=$1 work=$2 debs=$3
root=$work/root

mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$root" "$work/upper" "$work/scratch"
# The image stays as it is.
mount -t overlay -o "lowerdir=$image,upperdir=$work/upper,workdir=$work/scratch" overlay "$root"

mount -t proc proc "$root/proc"
# systemd sets some of the kernel's variables at its start: not this machine's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
: > "$root/dev/console"
mount --bind "$(tty)" "$root/dev/console"

mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
echo 127.0.0.1 localhost > "$root/etc/hosts"
mkdir -p "$root/debs"
mount --bind "$debs" "$root/debs"
mount -o remount,bind,ro "$root/debs"

# What would touch this machine's kernel, or hang up the terminal.
mkdir -p "$root/run/systemd/system"
for unit in console-getty.service systemd-modules-load.service modprobe@.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer; do
    ln -s /dev/null "$root/run/systemd/system/$unit"
done

# The control groups that this process was put in are the roots here.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    layout=systemd.unified_cgroup_hierarchy=1
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/memory"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup -o memory cgroup "$root/sys/fs/cgroup/memory"
    layout=systemd.unified_cgroup_hierarchy=0
fi

ip link set lo up
# Not chroot: in one, no user namespaces could be made, and poseidon.service wants one. And systemd hands credentials
# over by mounts that have to reach the services' namespaces, so they are shared.
mkdir "$root/.old"
cd "$root"
pivot_root . .old
# shellcheck disable=SC2016 # The inner shell expands it.
exec env -i container=triton-test PATH=/usr/sbin:/usr/bin:/sbin:/bin LAYOUT="$layout" \
    sh -c 'umount -l /.old && rmdir /.old && mount --make-rshared / && exec env -u LAYOUT /lib/systemd/systemd "$LAYOUT"' < /dev/console > /dev/console 2>&1
