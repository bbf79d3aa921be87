"""The packages: of build-packages.sh, looked into by other means than those that made them, and of the feed."""

import gzip
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
import tomllib
import unittest

import feed
from rootfs import BUSYBOX, OPENWRT, PATIENCE, TRITON, Router, wait_for

SCRIPT = os.path.join(OPENWRT, "build-packages.sh")
EPOCH = 1_700_000_000


def build(*arguments, path=None, **environment):
    """Runs build-packages.sh from another folder."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), **environment}
    if path:
        env["PATH"] = path + ":" + env["PATH"]
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, cwd="/", env=env)


def elf(machine, bits=32, little=True, tail=b""):
    """The head of a program for some processor."""
    order = "<" if little else ">"
    ident = b"\x7fELF" + bytes([1 if bits == 32 else 2, 1 if little else 2, 1]) + bytes(9)
    return ident + struct.pack(order + "HH", 2, machine) + b"\0" * 100 + tail


# The processor of each Rust target, from the ELF specification.
MACHINES = {
    "mipsel-unknown-linux-musl": elf(8),
    "mips-unknown-linux-musl": elf(8, little=False),
    "armv7-unknown-linux-musleabihf": elf(40),
    "arm-unknown-linux-musleabihf": elf(40),
    "armv5te-unknown-linux-musleabi": elf(40),
    "aarch64-unknown-linux-musl": elf(183, 64),
    "x86_64-unknown-linux-musl": elf(62, 64),
    "riscv64gc-unknown-linux-musl": elf(243, 64),
}


def described(tree):
    """What is in a folder: each path with its mode and content."""
    found = {}
    for folder, folders, files in os.walk(tree):
        for name in folders + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            else:
                content = ""
            found[os.path.relpath(path, tree)] = (oct(info.st_mode), content)
    return found


class Packages(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="triton-packages-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def ipk(self):
        """Builds the package of this machine's processor; busybox stands for a static program."""
        done = build("--out", self.path("out"), "--binary", BUSYBOX, "x86_64")
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.path("out", "triton_0.1.0-r1_x86_64.ipk")

    def test_an_ipk_is_what_opkg_reads(self):
        with open(self.ipk(), "rb") as file:
            data = file.read()
        self.assertEqual(data[:2], b"\x1f\x8b", "gzip, not ar")
        self.assertEqual(data[4:8], bytes(4), "no time in gzip's head")
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as outer:
            self.assertEqual(outer.getnames(), ["./debian-binary", "./data.tar.gz", "./control.tar.gz"])
            self.assertEqual(outer.extractfile("./debian-binary").read(), b"2.0\n")
            parts = {name: gzip.decompress(outer.extractfile(name).read()) for name in outer.getnames()[1:]}
        for name, tar in parts.items():
            self.assertEqual(tar[257:265], b"ustar  \0", "GNU tar")
            with tarfile.open(fileobj=io.BytesIO(tar)) as inner:
                members = inner.getmembers()
                self.assertEqual(members[0].name, ".")
                names = [member.name for member in members[1:]]
                self.assertEqual(names, sorted(names, key=lambda n: n.split("/")), name)
                for member in members:
                    self.assertEqual((member.uid, member.gid, member.mtime), (0, 0, EPOCH), member.name)
                inner.extractall(self.path(name))

        control_folder = self.path("./control.tar.gz")
        with open(os.path.join(control_folder, "control"), encoding="utf-8") as file:
            text = file.read()
        fields = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(" "))
        with open(os.path.join(OPENWRT, "..", "Cargo.toml"), "rb") as file:
            version = tomllib.load(file)["workspace"]["package"]["version"]
        makefile = feed.variables()
        self.assertEqual(fields["Package"], "triton")
        self.assertEqual(fields["Version"], f"{version}-r{makefile['release']}")
        self.assertEqual(fields["Architecture"], "x86_64")
        self.assertEqual(fields["Depends"], "ca-bundle")
        self.assertEqual(fields["Section"], makefile["section"])
        self.assertEqual(fields["Description"], makefile["title"])
        description = " ".join(line.strip() for line in text.splitlines() if line.startswith(" "))
        self.assertEqual(description, " ".join(makefile["description"].split()))
        with open(os.path.join(control_folder, "conffiles"), encoding="utf-8") as file:
            self.assertEqual(file.read().split(), makefile["conffiles"].split())
        for script in ("postinst", "prerm", "postinst-pkg"):
            self.assertEqual(os.stat(os.path.join(control_folder, script)).st_mode & 0o777, 0o755)
            subprocess.run([BUSYBOX, "ash", "-n", os.path.join(control_folder, script)], check=True)
        with open(os.path.join(control_folder, "postinst-pkg"), encoding="utf-8") as file:
            self.assertEqual(file.read().split(), makefile["postinst"].split())

        # The same files as the feed's package, and what the SDK makes of its conffiles: folders are kept over sysupgrade.
        data_folder = self.path("./data.tar.gz")
        with open(os.path.join(data_folder, "lib/upgrade/keep.d/triton"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "/etc/triton/\n")
        size = sum(
            os.lstat(os.path.join(folder, name)).st_size
            for folder, _, files in os.walk(data_folder)
            for name in files
            if not os.path.islink(os.path.join(folder, name))
        )
        self.assertEqual(int(fields["Installed-Size"]), size)
        shutil.rmtree(os.path.join(data_folder, "lib"))
        os.mkdir(self.path("feed"))
        feed.install(self.path("feed"), BUSYBOX)
        self.assertEqual(described(data_folder), described(self.path("feed")))

    def test_the_same_input_gives_the_same_bytes(self):
        """Whoever builds, wherever, whenever: here by a user who is not root, too."""
        os.chmod(self.folder, 0o777)
        copy = self.path("checkout")
        os.makedirs(copy)
        shutil.copytree(OPENWRT, os.path.join(copy, "openwrt"), ignore=shutil.ignore_patterns("test", "out"))
        shutil.copy(os.path.join(OPENWRT, "..", "Cargo.toml"), copy)
        for folder, _, _ in os.walk(copy):
            os.chmod(folder, 0o755)
        packages = []
        for umask, zone, user in ((0o022, "UTC", None), (0o077, "Asia/Tokyo", 65534 if os.getuid() == 0 else None)):
            done = subprocess.run(
                [os.path.join(copy, "openwrt", "build-packages.sh"), "--out", self.path(zone[:3]), "--binary", BUSYBOX, "x86_64"],
                capture_output=True,
                text=True,
                cwd="/",
                env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TZ": zone},
                umask=umask,
                user=user,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(self.path(zone[:3], "triton_0.1.0-r1_x86_64.ipk"), "rb") as file:
                packages.append(file.read())
        self.assertEqual(packages[0], packages[1])

    def test_each_architecture_gets_a_binary_of_its_processor(self):
        listed = dict(line.split() for line in build("list").stdout.splitlines())
        self.assertEqual(set(listed.values()), set(MACHINES))
        for target, head in MACHINES.items():
            place = self.path("target", target, "small")
            os.makedirs(place)
            with open(os.path.join(place, "triton"), "wb") as file:
                file.write(head)
        done = build("--out", self.path("out"), "all", CARGO_TARGET_DIR=self.path("target"))
        self.assertEqual(done.returncode, 0, done.stderr)
        made = sorted(name for name in os.listdir(self.path("out")) if name.endswith(".ipk"))
        self.assertEqual(made, sorted(f"triton_0.1.0-r1_{arch}.ipk" for arch in listed))

    def test_mistakes_are_named(self):
        def refused(*arguments, **environment):
            done = build("--out", self.path("out"), *arguments, **environment)
            self.assertNotEqual(done.returncode, 0)
            self.assertFalse(os.path.exists(self.path("out")) and os.listdir(self.path("out")))
            return done.stderr

        for name, content in (
            ("wrong", elf(8, little=False)),
            ("dynamic", elf(8, tail=b"/lib/ld-musl-mipsel-sf.so.1\0")),
            ("text", b"#!/bin/sh\n" * 10),
        ):
            with open(self.path(name), "wb") as file:
                file.write(content)
        self.assertIn("another processor than mipsel", refused("--binary", self.path("wrong"), "mipsel_24kc"))
        self.assertIn("linked dynamically", refused("--binary", self.path("dynamic"), "mipsel_24kc"))
        self.assertIn("no ELF", refused("--binary", self.path("text"), "mipsel_24kc"))
        self.assertIn("unknown architecture sparc", refused("sparc"))
        self.assertIn("cross/build.sh mips-unknown-linux-musl", refused("mips_24kc", CARGO_TARGET_DIR=self.path("none")))
        self.assertIn("Usage", refused())
        self.assertIn("for one ARCH", refused("--binary", BUSYBOX, "x86_64", "mips_24kc"))

    def test_versions_follow_apks_grammar(self):
        copy = self.path("checkout")
        os.makedirs(copy)
        shutil.copytree(OPENWRT, os.path.join(copy, "openwrt"), ignore=shutil.ignore_patterns("test", "out"))
        script = os.path.join(copy, "openwrt", "build-packages.sh")
        for version, package in (
            ("1.2.3", "1.2.3-r1"),
            ("1.0.0-rc1", "1.0.0_rc1-r1"),
            ("1.0.0-beta.2", "1.0.0_beta2-r1"),
            ("1.0.0-nightly", None),
        ):
            with open(os.path.join(copy, "Cargo.toml"), "w", encoding="utf-8") as file:
                file.write(f'[workspace.package]\nversion = "{version}"\n')
            done = subprocess.run(
                [script, "--out", self.path("out"), "--binary", BUSYBOX, "x86_64"], capture_output=True, text=True
            )
            if package:
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertTrue(os.path.exists(self.path("out", f"triton_{package}_x86_64.ipk")))
            else:
                self.assertIn("apk does not understand", done.stderr)

    def test_an_apk_is_asked_for_with_the_lists_that_openwrt_needs(self):
        # Not apk-tools, which no registry here has: a recorder of what it is told.
        os.mkdir(self.path("bin"))
        recorder = self.path("bin", "apk")
        with open(recorder, "w", encoding="utf-8") as file:
            file.write(
                '#!/bin/sh\n[ "$1" = --version ] && { echo "apk-tools 3.0.0, compiled for x86_64."; exit 0; }\n'
                f'printf "%s\\n" "$@" >"{self.path("arguments")}"\n'
                'while [ $# -gt 0 ]; do case "$1" in --files) tree="$2";; --output) : >"$2";; --script)'
                f' cp -p "${{2#*:}}" "{self.folder}/${{2%%:*}}";; esac; shift; done\n'
                f'cp -a "$tree" "{self.path("tree")}"\n'
            )
        os.chmod(recorder, 0o755)
        done = build("--out", self.path("out"), "--binary", BUSYBOX, "x86_64", path=self.path("bin"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.listdir(self.path("out", "x86_64")), ["triton-0.1.0-r1.apk"])
        with open(self.path("arguments"), encoding="utf-8") as file:
            arguments = file.read().splitlines()
        self.assertEqual(arguments[0], "mkpkg")
        for info in ("name:triton", "version:0.1.0-r1", "arch:x86_64", "depends:ca-bundle"):
            self.assertIn(info, arguments)
        lists = self.path("tree", "lib", "apk", "packages")
        with open(os.path.join(lists, "triton.list"), encoding="utf-8") as file:
            listed = file.read().split()
        found = [
            "/" + name
            for name, (mode, _) in described(self.path("tree")).items()
            if not mode.startswith("0o4") and not name.startswith("lib/apk/")
        ]
        self.assertEqual(listed, sorted(found))
        self.assertIn("/etc/init.d/triton", listed)
        with open(os.path.join(lists, "triton.conffiles"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "/etc/config/triton\n/etc/triton/\n")
        with open(os.path.join(lists, "triton.conffiles_static"), encoding="utf-8") as file:
            name, digest = file.read().split()
        with open(self.path("tree", name.lstrip("/")), "rb") as file:
            self.assertEqual(digest, hashlib.sha256(file.read()).hexdigest())
        with open(self.path("post-install"), encoding="utf-8") as file:
            self.assertIn("default_postinst", file.read())
        with open(self.path("post-upgrade"), encoding="utf-8") as file:
            self.assertIn("export PKG_UPGRADE=1\n", file.read())
        with open(self.path("pre-deinstall"), encoding="utf-8") as file:
            self.assertIn("default_prerm", file.read())
        self.assertEqual({int(os.lstat(self.path("tree", n)).st_mtime) for n in described(self.path("tree"))}, {EPOCH})

    def test_installed_upgraded_and_removed(self):
        """The life of the package on a router, by its own scripts."""
        router = Router()
        self.addCleanup(router.close)
        with tarfile.open(self.ipk()) as outer:
            outer.extractall(self.path("ipk"))
        for part in ("data", "control"):
            with tarfile.open(self.path("ipk", part + ".tar.gz")) as tar:
                tar.extractall(self.path(part))
                if part == "data":
                    listed = ["/" + m.name[2:] for m in tar.getmembers() if not m.isdir()]
        info = router.path("usr/lib/opkg/info")
        os.makedirs(info)
        for name in os.listdir(self.path("control")):
            shutil.copy(self.path("control", name), os.path.join(info, "triton." + name))
        router.write("usr/lib/opkg/info/triton.list", "\n".join(listed) + "\n")
        router.write("etc/init.d/rpcd", "#!/bin/sh\necho \"rpcd $1\" >>/procd/rpcd\n")
        os.chmod(router.path("etc/init.d/rpcd"), 0o755)
        router.install_tree(self.path("data"))

        def script(name, said=""):
            result = router.run("/bin/busybox", "ash", f"/usr/lib/opkg/info/triton.{name}")
            self.assertEqual(result, (0, "", said), name)
            self.assertEqual(router.read("procd/violations"), "")

        # Of an image's own files, which may have any mode.
        os.chmod(router.path("etc/config/triton"), 0o644)
        os.chmod(router.path("etc/triton"), 0o755)
        # A first installation starts nothing, but would after a reboot.
        script("postinst", "triton: not started: /etc/config/triton names no url (and does not say offline)\n")
        self.assertEqual(router.read("procd/actions"), "nothing\n")
        self.assertEqual(router.read("procd/rpcd"), "rpcd reload\n")
        self.assertEqual(sorted(os.listdir(router.path("etc/rc.d"))), ["K10triton", "S95triton"])
        self.assertEqual(os.listdir(router.path("etc/uci-defaults")), [])
        self.assertEqual((router.mode("etc/config/triton"), router.mode("etc/triton")), (0o600, 0o700))
        # Configured, it runs.
        router.configure(offline="1")
        self.assertEqual(router.init("reload")[0], ["start"])
        first = router.started()
        identity = router.read("etc/triton/instance")
        # opkg's upgrade: prerm of the old one, files, postinst of the new one. The configuration is a conffile.
        script("prerm")
        self.assertIsNone(router.pid())
        self.assertEqual(os.listdir(router.path("etc/rc.d")), [])
        own = router.read("etc/config/triton")
        router.install_tree(self.path("data"))
        router.write("etc/config/triton", own)
        script("postinst")
        self.assertNotEqual(router.started(), first)
        self.assertEqual(router.read("etc/triton/instance"), identity)
        script("prerm")
        self.assertEqual(os.listdir(router.path("etc/rc.d")), [])

    def test_a_job_may_upgrade_its_own_agent(self):
        """As the README says: detached, since opkg stops the agent, and with it the job, in the middle."""
        with open(os.path.join(OPENWRT, "README.md"), encoding="utf-8") as file:
            command = re.search(r"poseidon run attic -- (start-stop-daemon .*)", file.read()).group(1)
        router = Router().install()
        self.addCleanup(router.close)
        router.configure(offline="1")
        router.init("start")
        first = router.started()
        router.write(
            "usr/bin/opkg",
            "#!/bin/sh\n[ \"$1\" = update ] && exit 0\n/bin/ash /etc/rc.common /etc/init.d/triton stop\nsleep 1\n"
            "/bin/ash /etc/rc.common /etc/init.d/triton start\necho \"$*\" >/upgraded\n",
        )
        os.chmod(router.path("usr/bin/opkg"), 0o755)
        code, out, err = router.run("/usr/bin/triton", "exec", "--shell", command)
        self.assertEqual(code, 0, out + err)
        wait_for("the end of the upgrade", lambda: os.path.exists(router.path("upgraded")))
        self.assertEqual(router.read("upgraded"), "upgrade triton\n")
        self.assertNotEqual(router.started(), first)
        second = router.pid()
        shell = "/proc/" + router.read("tmp/run/triton-upgrade.pid").strip() + "/cmdline"
        self.assertRegex(shell, r"^/proc/\d+/cmdline$")

        def gone():
            try:
                with open(shell, "rb") as file:
                    return not file.read()
            except (FileNotFoundError, ProcessLookupError):
                return True

        wait_for("the end of the detached shell", gone)

        # An opkg that stops and disables the agent and then fails, as on a full flash, leaves it running and a word in
        # the log.
        import socket

        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(log.close)
        log.settimeout(PATIENCE)
        log.bind(router.path("dev/log"))
        router.write(
            "usr/bin/opkg",
            "#!/bin/sh\n[ \"$1\" = update ] && exit 1\n/etc/init.d/triton disable\n/etc/init.d/triton stop\n"
            "echo 'No space left on device' >&2\nexit 255\n",
        )
        os.chmod(router.path("usr/bin/opkg"), 0o755)
        code, out, err = router.run("/usr/bin/triton", "exec", "--shell", command)
        self.assertIn(code, (0, 130), "this opkg is so quick that the agent may stop before it tells the end")
        said = ""
        for _ in range(100):
            said = log.recv(4096).decode()
            if "triton-upgrade" in said:
                break
        self.assertIn("triton-upgrade: No space left on device", said)
        wait_for("another agent", lambda: router.pid() not in (None, second))
        router.started()
        self.assertEqual(sorted(os.listdir(router.path("etc/rc.d"))), ["K10triton", "S95triton"])


class Feed(unittest.TestCase):
    def test_the_makefile_builds_what_is_configured(self):
        default = feed.variables()
        self.assertEqual(default["features"], "full,rustls")
        self.assertEqual(default["args"], "--locked --no-default-features")
        self.assertEqual(feed.variables("TRITON_TLS_RUSTLS")["features"], "full,rustls")
        openssl = feed.variables("TRITON_TLS_OPENSSL")
        self.assertEqual(openssl["features"], "full,tls")
        self.assertIn("OPENSSL_NO_VENDOR=1", openssl["vars"])
        self.assertEqual(feed.variables("TRITON_TLS_NONE")["features"], "full")
        for part in ("$(RUST_ARCH_DEPENDS)",):
            with open(os.path.join(feed.PACKAGE, "Makefile"), encoding="utf-8") as file:
                self.assertIn(part, file.read())
        self.assertIn("+TRITON_TLS_OPENSSL:libopenssl", default["depends"])
        # What the feeds' reviewers and opkg want to know.
        self.assertRegex(default["url"], r"^https://\S+$")
        self.assertRegex(default["maintainer"], r"^[^<>]+ <\S+@\S+>$")
        with open(os.path.join(OPENWRT, "..", "Cargo.toml"), "rb") as file:
            self.assertEqual(default["maintainer"], tomllib.load(file)["package"]["metadata"]["deb"]["maintainer"])
        # A rebuild for each option that Config.in has.
        with open(os.path.join(feed.PACKAGE, "Config.in"), encoding="utf-8") as file:
            options = re.findall(r"^\s*config (\w+)", file.read(), re.M)
        self.assertEqual(default["config"].split(), ["CONFIG_" + option for option in options])

    def test_the_versions_agree(self):
        with open(os.path.join(OPENWRT, "..", "Cargo.toml"), "rb") as file:
            cargo = tomllib.load(file)
        self.assertEqual(feed.variables()["version"], cargo["workspace"]["package"]["version"])
        for feature in ("full", "tls", "rustls"):
            self.assertIn(feature, cargo["features"])
        for name in ("Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"):
            self.assertTrue(os.path.exists(os.path.join(OPENWRT, "..", name)), name)

    def test_the_feeds_own_test(self):
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(TRITON, os.path.join(folder, "triton"))
            env = {**os.environ, "PATH": folder + ":" + os.environ["PATH"]}
            script = os.path.join(feed.PACKAGE, "test.sh")

            def run(*arguments):
                return subprocess.run(
                    [BUSYBOX, "ash", script, *arguments], capture_output=True, text=True, env=env
                )

            version = feed.variables()["version"]
            done = run("triton", version)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            done = run("triton", version + ".1")
            self.assertEqual(done.returncode, 1)
            self.assertIn("triton --version says", done.stderr)
            self.assertEqual(run("another", "9").returncode, 0)


if __name__ == "__main__":
    unittest.main()
