#!/usr/bin/env python3
"""often.py: writes cross/often.ld anew, by watching what an agent runs. About 15 minutes; needs qemu-user-static, llvm
(llvm-nm), and what cross/build.sh and bench/ need.

An agent is started under qemu, which names each piece of code when it first runs it: it reads its configuration, connects
over TLS, sends heartbeats, loses its server, finds it again and runs two jobs. Whatever of the program ran is listed, and
cross/ld puts it together. The kernel brings a program into memory in pieces of 64 KiB, so that without this nearly all
of it is resident (docs/size.md). A function that is missing in the list only lies elsewhere: run this again when
`bench/budgets.sh` finds that the resident memory has grown.
"""

import os
import re
import shlex
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, "bench"))
import lab  # noqa: E402

# Three that differ: 64 bits, MIPS, Thumb. The others have the same functions.
TARGETS = {"x86_64": "x86_64-unknown-linux-musl", "mipsel": "mipsel-unknown-linux-musl",
           "armv7": "armv7-unknown-linux-musleabihf"}
QEMU = {"armv7": "arm"}
HEARTBEAT = 10
# Under qemu a handshake takes seconds.
PATIENCE = 300

HEAD = """\
/* Made by cross/often.py: what runs in an agent that is idle or has an ordinary job, in alphabetical order. */
SECTIONS { .text.often : {
/* Cryptography, whose functions go by the processor, and whatever is written in assembly. */
*libring-*.rlib:*(.text .text.*)
*(.text .text.*4sha14* .text.*4sha24*)
*(
"""
TAIL = """\
)
} } INSERT BEFORE .text;
"""


def build(folder):
    """The small programs, with their symbols."""
    environment = dict(os.environ, CARGO_TARGET_DIR=folder, CARGO_PROFILE_SMALL_STRIP="false")
    subprocess.run([os.path.join(HERE, "build.sh"), *TARGETS], env=environment, check=True)


def run(world, programs, logs):
    """Has one agent of each target do what agents do all day."""
    poseidon = lab.Poseidon(world, "poseidon", HEARTBEAT, True)
    config = world.path("triton.toml")
    with open(config, "w") as file:
        file.write('log = "info"\n')
    os.chmod(config, 0o600)
    agents = []
    for name, program in programs.items():
        wrapper = world.path(name)
        with open(wrapper, "w") as file:
            file.write(f"#!/bin/sh\nexec {lab.need(f'qemu-{QEMU.get(name, name)}-static', 'qemu-user-static')} -d in_asm "
                       f"-D {shlex.quote(logs[name])}.$$ {shlex.quote(program)} \"$@\"\n")
        os.chmod(wrapper, 0o755)
        agents.append(lab.Agent(world, wrapper, "agent-" + name, poseidon, extra=["--config", config]))
    time.sleep(3 * HEARTBEAT)
    poseidon.stop()
    time.sleep(5)
    poseidon.start()
    for agent in agents:
        agent.wait_until_up()
    time.sleep(3 * HEARTBEAT)
    for agent in agents:
        for argv in (["echo", "hello"], ["false"]):
            poseidon.run(agent.name, {"argv": argv})
    for agent in agents:
        world.end(agent.process)


def functions(program, logs):
    """The names of all functions that qemu has met, with the other names of the same code."""
    met = set()
    for log in logs:
        with open(log, errors="replace") as file:
            met.update(line[4:].strip() for line in file if line.startswith("IN: "))
    places, names = {}, {}
    listing = subprocess.run([lab.need("llvm-nm", "llvm"), "--defined-only", program], check=True, capture_output=True, text=True)
    for line in listing.stdout.splitlines():
        place, kind, name = line.split(maxsplit=2)
        if kind in "tTwW" and not name.startswith("."):
            places[name] = place
            names.setdefault(place, []).append(name)
    return {other for name in met if name in places for other in names[places[name]]}


def pattern(name):
    """A name without what changes with the compiler: the hashes of crates, and LLVM's numbers."""
    name = re.sub(r"Cs[0-9A-Za-z]+_(?=\d)", "Cs*_", name)
    return re.sub(r"\.(llvm\.)?\d+$", "*", name)


def main():
    folder = os.path.join(lab.TARGET, "often")
    build(folder)
    programs = {name: os.path.join(folder, triple, "small", "triton") for name, triple in TARGETS.items()}
    world = lab.Lab(PATIENCE)
    logs = {name: world.path("run-" + name) for name in TARGETS}
    try:
        run(world, programs, logs)
    except lab.Failed:
        world.show_logs()
        raise
    found = set()
    for name, program in programs.items():
        written = [entry.path for entry in os.scandir(world.folder) if entry.path.startswith(logs[name] + ".")]
        of_target = functions(program, written)
        print(f"often.py: {name}: {len(of_target)} functions", file=sys.stderr)
        found |= {pattern(one) for one in of_target}
    with open(os.path.join(HERE, "often.ld"), "w") as file:
        file.write(HEAD)
        for name in sorted(found):
            # Rust's #[cold] functions are in .text.unlikely.
            file.write(f".text*.{name}\n")
        file.write(TAIL)


if __name__ == "__main__":
    try:
        main()
    except lab.Failed as error:
        sys.exit(f"often.py: {error}")
