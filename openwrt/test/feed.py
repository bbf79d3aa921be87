"""Runs triton/Makefile under GNU make with stand-ins for the SDK's includes."""

import os
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(os.path.dirname(HERE), "triton")


def make(*arguments):
    """Runs the Makefile in a copy of the package, laid as in the feed."""
    with tempfile.TemporaryDirectory() as feed:
        package = os.path.join(feed, "admin", "triton")
        shutil.copytree(PACKAGE, package)
        sdk = os.path.join(HERE, "stand-in", "sdk")
        os.makedirs(os.path.join(feed, "lang", "rust"))
        shutil.copy(os.path.join(sdk, "rust-package.mk"), os.path.join(feed, "lang", "rust"))
        done = subprocess.run(
            ["make", "--no-print-directory", "-s", "-C", package, f"TOPDIR={sdk}", f"INCLUDE_DIR={sdk}", *arguments],
            capture_output=True,
            text=True,
        )
        if done.returncode or done.stderr:
            raise AssertionError(f"make {arguments}: {done.stdout}{done.stderr}")
        return done.stdout


def install(tree, program):
    """Installs the package into the folder 'tree', with a program in the place of the compiled one."""
    with tempfile.TemporaryDirectory() as built:
        os.makedirs(os.path.join(built, "bin"))
        shutil.copy(program, os.path.join(built, "bin", "triton"))
        make("install", f"PKG_INSTALL_DIR={built}", f"DESTDIR={tree}")


def variables(*config):
    """What the Makefile sets, with CONFIG_ options."""
    lines = make("variables", *(f"CONFIG_{name}=y" for name in config)).splitlines()
    return dict(line.split("=", 1) for line in lines)
