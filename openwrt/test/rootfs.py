"""A small root folder with the package in it, as on a router: busybox, stand-ins for OpenWrt's own scripts, and the real
agent. Commands run in it by chroot, so every path is the real one."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
OPENWRT = os.path.dirname(HERE)
FILES = os.path.join(OPENWRT, "triton", "files")
BUSYBOX = os.environ["BUSYBOX"]


def stripped(program):
    """A copy without symbols, which are most of a debug build, for quick copies."""
    folder = tempfile.mkdtemp(prefix="triton-stripped-")
    atexit.register(shutil.rmtree, folder)
    copy = os.path.join(folder, "triton")
    subprocess.run(["strip", "-o", copy, program], check=True)
    return copy


TRITON = stripped(os.environ["TRITON"])

# What OpenWrt's busybox has by default; Debian's has more.
APPLETS = """
[ [[ ash awk basename cat chgrp chmod chown chroot clear cmp cp crond crontab cut date dd df dirname dmesg du echo egrep
env expr false fgrep find flock free fsync grep gunzip gzip halt head hexdump id ifconfig kill killall less ln lock logger
login ls md5sum mkdir mkfifo mknod mktemp mount mv nc netstat nice nslookup ntpd passwd pgrep pidof ping ping6 pivot_root
poweroff printf ps pwd readlink reboot reset rm rmdir route sed seq sh sha256sum sleep sort start-stop-daemon strings
switch_root sync sysctl tail tar tee test time top touch tr traceroute true udhcpc umount uname uniq uptime vi wc which
xargs yes zcat
""".split()

# How long the agent may take for what it does at once, on a loaded machine.
PATIENCE = 20


def wait_for(what, condition):
    """Waits until condition() is true, and gives its value."""
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.02)


def libraries(program):
    """The shared libraries of a program."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return [word for line in out.splitlines() for word in line.split() if word.startswith("/")]


def uci_quote(value):
    """A value as 'uci export' writes it."""
    return b"'" + os.fsencode(value).replace(b"'", b"'\\''") + b"'"


class Router:
    """One router. It is empty until install() or install_tree()."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="triton-openwrt-")
        for folder in (
            "bin sbin lib/functions usr/bin usr/share/libubox etc/config etc/init.d etc/rc.d etc/uci-defaults proc dev "
            "procd tmp/run root"
        ).split():
            os.makedirs(self.path(folder))
        os.symlink("/tmp", self.path("var"))
        shutil.copy(BUSYBOX, self.path("bin/busybox"))
        for applet in APPLETS:
            if applet not in ("lock",):
                os.symlink("busybox", self.path("bin", applet))
        listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        extra = [name for name in listed if name not in APPLETS and name.replace("_", "a").isalnum() and name != "busybox"]
        self.write("procd/forbidden", "\n".join(extra))
        stand_in = os.path.join(HERE, "stand-in")
        for name, place in (
            ("functions.sh", "lib/functions.sh"),
            ("procd.sh", "lib/functions/procd.sh"),
            ("rc.common", "etc/rc.common"),
            ("jshn.sh", "usr/share/libubox/jshn.sh"),
            ("uci", "sbin/uci"),
            ("validate_data", "sbin/validate_data"),
        ):
            shutil.copy(os.path.join(stand_in, name), self.path(place))
            os.chmod(self.path(place), 0o755)
        self.write("etc/passwd", "root:x:0:0:root:/root:/bin/ash\n")
        self.write("etc/group", "root:x:0:\nadmins:x:1000:\n")
        for library in libraries(TRITON):
            target = self.path(library.lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(library, target)
        subprocess.run(["mount", "--rbind", "/proc", self.path("proc")], check=True)
        # Single files, since a whole /dev would be at the mercy of close().
        for device in ("dev/null", "dev/urandom"):
            self.write(device, "")
            subprocess.run(["mount", "--bind", "/" + device, self.path(device)], check=True)

    def path(self, *parts):
        return os.path.join(self.root, *(part.lstrip("/") for part in parts))

    def write(self, name, text):
        with open(self.path(name), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())

    def read(self, name):
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def mode(self, name):
        return os.stat(self.path(name)).st_mode & 0o7777

    def install_tree(self, tree):
        """Puts a package's files in, with the agent that is under test."""
        subprocess.run(["cp", "-a", tree + "/.", self.root], check=True)
        shutil.copy(TRITON, self.path("usr/bin/triton"))
        return self

    def install(self):
        """What the package's Makefile installs."""
        import feed

        with tempfile.TemporaryDirectory() as tree:
            feed.install(tree, TRITON)
            return self.install_tree(tree)

    def configure(self, **options):
        """Writes /etc/config/triton; a list gives a list."""
        lines = [b"\npackage triton\n\nconfig triton 'main'"]
        for name, value in options.items():
            if isinstance(value, list):
                lines += [b"\tlist " + name.encode() + b" " + uci_quote(item) for item in value]
            else:
                lines.append(b"\toption " + name.encode() + b" " + uci_quote(value))
        self.write("etc/config/triton", b"\n".join(lines) + b"\n")
        return self

    def run(self, *argv, stdin=b"", env=None):
        """Runs a command in the router; returns exit code, standard output and standard error."""
        done = subprocess.run(
            ["chroot", self.root, *argv],
            input=stdin,
            capture_output=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **(env or {})},
            timeout=60,
        )
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def init(self, action, env=None, quiet=True):
        """Runs /etc/init.d/triton ACTION as a person or a job does; returns what procd did and what was logged, which
        is also what the caller reads, unless not 'quiet'. The exit code is in 'code'."""
        before_actions, before_log = len(self.read("procd/actions")), len(self.read("procd/log"))
        code, out, err = self.run("/bin/busybox", "ash", "/etc/rc.common", "/etc/init.d/triton", action, env=env)
        log = self.read("procd/log")[before_log:]
        if quiet:
            said = "".join(line.split(" ", 1)[1] + "\n" for line in log.splitlines())
            assert (out, err) == ("", said), f"{action} says: {out}{err}, and logs {log}"
        assert code in (0, 1), f"{action}: exit code {code}"
        self.code = code
        violations = self.read("procd/violations")
        assert not violations, violations
        return self.read("procd/actions")[before_actions:].split("\n")[:-1], log

    def param(self, name):
        """A parameter of the instance as procd got it."""
        return self.read("procd/new/instance/" + name).splitlines()

    def toml(self):
        return tomllib.loads(self.read("tmp/run/triton/triton.toml"))

    def pid(self):
        text = self.read("procd/pid").strip()
        return int(text) if text else None

    def started(self):
        """Waits until the agent listens; gives its process id."""
        wait_for("the agent's socket", lambda: self.run("/usr/bin/triton", "status")[0] == 0)
        return self.pid()

    def agent_log(self):
        return self.read("procd/stderr")

    def close(self):
        pid = self.pid()
        if pid:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for place in ("proc", "dev/null", "dev/urandom"):
            subprocess.run(["umount", "-R", "-l", self.path(place)], check=True)
        shutil.rmtree(self.root, ignore_errors=True)
