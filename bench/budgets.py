"""The table of budgets: see budgets.sh."""

import os
import re
import shutil
import subprocess
import sys
import time

import lab
from lab import Agent, Failed, Lab, Poseidon, Relay, Trace, need

# Short names, and what Rust calls them. The order is that of the table.
TARGETS = {
    "mipsel": "mipsel-unknown-linux-musl",
    "mips": "mips-unknown-linux-musl",
    "armv7": "armv7-unknown-linux-musleabihf",
    "arm": "arm-unknown-linux-musleabihf",
    "armv5te": "armv5te-unknown-linux-musleabi",
    "aarch64": "aarch64-unknown-linux-musl",
    "riscv64": "riscv64gc-unknown-linux-musl",
    "x86_64": "x86_64-unknown-linux-musl",
}
# Of the folders that cross/build.sh makes: what is in them.
VARIANTS = [("", "small", "TLS by rustls"), (".native", "small-native", "TLS by OpenSSL"), (".plain", "small-plain", "no TLS")]
HEARTBEAT = 30
# How long the idle agent is watched: four heartbeats, so that what comes with every second one counts as often as it should.
WATCH = 4 * HEARTBEAT
JOBS = 1000
TRACED_JOBS = 100
OUTPUT = 10**9
WRITES = "write,writev,pwrite64,pwritev,pwritev2,ftruncate,fallocate,sendfile,copy_file_range"
SYNCS = "fsync,fdatasync,sync,syncfs,sync_file_range,msync"


class Budgets:
    """The data file: name -> (budget, aim, unit)."""

    def __init__(self, path):
        self.rows = {}
        with open(path) as file:
            for number, line in enumerate(file, 1):
                fields = line.split("#")[0].split(None, 3)
                if not fields:
                    continue
                try:
                    name, budget, aim, unit = fields
                    row = float(budget), None if aim == "-" else float(aim), unit.strip()
                except ValueError:
                    raise Failed(f"{path}:{number}: a line is: name budget aim unit") from None
                if name in self.rows:
                    raise Failed(f"{path}:{number}: {name} is there already")
                self.rows[name] = row

    def verdict(self, name, measured):
        """Whether it holds, and a word for the table."""
        if name not in self.rows:
            return True, "-"
        budget, aim, _ = self.rows[name]
        if measured > budget:
            return False, "OVER"
        return True, "ok" if aim is None or measured > aim else "ok, aim reached"


class Table:
    """What was measured."""

    def __init__(self, budgets):
        self.budgets, self.seen, self.failed = budgets, set(), []

    def head(self, text):
        print(f"\n{text}")
        print(f"  {'':<26} {'measured':>10} {'budget':>10} {'aim':>10}")

    def row(self, name, measured, note="", unit=None):
        holds, word = self.budgets.verdict(name, measured)
        budget, aim, unit = self.budgets.rows.get(name, (None, None, unit or "bytes"))
        self.seen.add(name)
        if not holds:
            self.failed.append(f"over budget: {name}: {shown(measured, unit)}, allowed are {shown(budget, unit)}")
        note = f"  {note}" if note else ""
        print(f"  {name:<26} {shown(measured, unit):>10} {shown(budget, unit):>10} {shown(aim, unit):>10}  {word}{note}",
              flush=True)

    def absent(self, name, why):
        print(f"  {name:<26} {why}", flush=True)


def shown(value, unit):
    if value is None:
        return "-"
    if unit == "bytes" and value >= 1e6:
        return f"{value / 1e6:.2f} MB"
    if unit == "bytes" and value >= 1e4:
        return f"{value / 1e3:.0f} kB"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def binary(target, folder):
    return os.path.join(lab.TARGET, TARGETS[target], folder, "triton")


def squashed(world, path):
    """Bytes that the file takes in a router's squashfs, its frame not counted."""
    def image(name, *files):
        place = world.path(name)
        subprocess.run([need("mksquashfs", "squashfs-tools"), *files, place, "-comp", "xz", "-b", "256k", "-noappend",
                        "-no-xattrs", "-all-root", "-nopad", "-quiet", "-no-progress"],
                       check=True, stdout=subprocess.DEVNULL)
        size = os.path.getsize(place)
        os.remove(place)
        return size
    empty = world.path("empty")
    open(empty, "w").close()
    return image("full.squashfs", path) - image("empty.squashfs", empty)


def sizes(table, world, asked):
    table.head("size: the stripped static binary, and what it takes in a squashfs (xz, 256 KiB)")
    for target in TARGETS:
        for suffix, folder, what in VARIANTS:
            path, name = binary(target, folder), f"size.{target}{suffix}"
            if os.path.exists(path):
                table.row(name, os.path.getsize(path), what)
                table.row(name + ".xz", squashed(world, path))
            elif not suffix:
                table.absent(name, f"not built: cross/build.sh {target}")
                if target in asked:
                    table.failed.append(f"{name}: not built: cross/build.sh {target}")


class Measured:
    """A plain and a TLS agent, each at its own Poseidon."""

    def __init__(self, world, program):
        self.world = world
        plain, tls = Poseidon(world, "plain", HEARTBEAT, False), Poseidon(world, "tls", HEARTBEAT, True)
        self.relay = Relay(tls.address)
        # Each from a file of its own, so that no page of it counts for two.
        self.plain = Agent(world, shutil.copy(program, world.path("triton-plain")), "agent-plain", plain)
        self.tls = Agent(world, shutil.copy(program, world.path("triton-tls")), "agent-tls", tls, self.relay.address)
        for agent in (self.plain, self.tls):
            agent.kernel.come_to_rest()

    def idle(self, table):
        plain, tls = self.plain.kernel, self.tls.kernel
        table.head(f"memory: connected and idle, a heartbeat every {HEARTBEAT} s, the system's authorities to choose from")
        for name, process in (("plain", plain), ("tls", tls)):
            table.row(f"memory.{name}.idle", process.resident(), "resident")
            table.row(f"memory.{name}.idle.pss", process.proportional(), "proportional; what it shares counts in part, and here it shares nothing")
            table.row(f"memory.{name}.idle.own", process.anonymous(), "its own: the rest is the program's file, which the kernel can drop")

        trace = Trace(self.world, self.plain.process.pid, "idle")
        before, begin = tls.switches(), time.monotonic()
        time.sleep(WATCH)
        switches, end = tls.switches() - before, time.monotonic()
        calls = trace.stop()
        minutes = WATCH / 60

        table.head(f"idle: {WATCH} s with a heartbeat every {HEARTBEAT} s")
        table.row("idle.wakeups", switches / minutes, "TLS; voluntary context switches of all threads", "per minute")
        table.row("idle.calls", len(calls) / minutes, "plain; system calls of all threads", "per minute")
        self.flash(table, "idle", calls, 1)

        table.head("on the wire: payload of TCP, both ways, TLS and WebSocket included; TCP/IP adds 40 to 52 for each packet")
        first = self.first_heartbeat()
        bursts = self.relay.between(begin, end)
        # A ping and its answer alone are 52 bytes.
        beats = [burst for burst in bursts if burst > 100]
        if len(beats) != WATCH // HEARTBEAT:
            raise Failed(f"{WATCH} s with a heartbeat every {HEARTBEAT} s should be {WATCH // HEARTBEAT} bursts of bytes: {bursts}")
        table.row("wire.heartbeat.first", first, "whole")
        table.row("wire.heartbeat.later", min(beats), "what has changed")
        table.row("wire.heartbeat.asking", max(beats), "the same with a ping and its answer, every second time")
        # One in twenty is whole.
        a_day = 86400 / HEARTBEAT * (0.05 * (first - min(beats)) + sum(bursts) / len(beats))
        table.row("wire.day", round(a_day))

    def first_heartbeat(self):
        """The largest record of the first burst behind the handshake is the first heartbeat: hello is shorter or before it."""
        data, records = bytes(self.relay.beginning), []
        at = 0
        while at + 5 <= len(data):
            length = int.from_bytes(data[at + 3:at + 5], "big")
            records.append((data[at], 5 + length))
            at += 5 + length
        # Application data: the end of the handshake (TLS 1.3), the HTTP upgrade, hello, then the heartbeat.
        encrypted = [size for kind, size in records if kind == 23]
        if len(encrypted) < 4:
            raise Failed(f"the relay saw only {records}")
        return encrypted[3]

    def flash(self, table, name, calls, times):
        state = os.path.realpath(self.plain.state)
        own = [c for c in calls if c[3] and c[3].startswith(state)]
        written = 0
        for _, _, call, path, rest in own:
            if call in WRITES.split(","):
                # The result stands at the end: "= 123".
                found = re.search(r"= (\d+)$", rest.strip())
                if not found:
                    raise Failed(f"a write that is not understood: {call} {path} {rest}")
                written += int(found.group(1)) if call not in ("ftruncate", "fallocate") else 0
        syncs = sum(call in SYNCS.split(",") for _, _, call, _, _ in calls)
        table.row(f"flash.{name}.bytes", written / times, "written to files")
        table.row(f"flash.{name}.syncs", syncs / times, "waits for the disk", "calls")

    def jobs(self, table):
        table.head(f"jobs: {JOBS} times `true` by Poseidon's API over TLS")
        process = self.tls.kernel
        process.forget_peak()
        before = process.resident()
        for _ in range(JOBS):
            result = self.tls.poseidon.run(self.tls.name, {"argv": ["true"]})
            if result["status"] != "succeeded":
                raise Failed(f"true ended with {result}")
        table.row("memory.tls.jobs.peak", process.peak(), "resident at most")
        table.row("memory.tls.jobs.growth", process.peak() - before, "above what it was before")
        trace = Trace(self.world, self.plain.process.pid, "jobs", f"{WRITES},{SYNCS}")
        for _ in range(TRACED_JOBS):
            self.plain.poseidon.run(self.plain.name, {"argv": ["true"]})
        self.flash(table, "job", trace.stop(), TRACED_JOBS)

    def output(self, table):
        table.head(f"output: {OUTPUT / 1e9:.0f} GB of one job through `poseidon run`, over TLS")
        process = self.tls.kernel
        process.forget_peak()
        before = process.resident()
        poseidon = self.tls.poseidon
        ca = self.world.certificate()[0]
        arguments = [lab.poseidon_program(), "--data", poseidon.data, "--url", f"https://{poseidon.address[0]}:{poseidon.address[1]}",
                     "--ca-file", ca, "run", self.tls.name, "--", "sh", "-c", f"head -c {OUTPUT} /dev/zero | tr '\\0' x"]
        begin = time.monotonic()
        run, _ = self.world.start("run", arguments, stdout=subprocess.PIPE)
        count = 0
        while data := run.stdout.read1(1 << 20):
            count += len(data)
        if run.wait() != 0 or count != OUTPUT:
            raise Failed(f"{count} bytes arrived, {OUTPUT} were written; `poseidon run` ended with {run.returncode}")
        seconds = time.monotonic() - begin
        table.row("memory.tls.output.peak", process.peak(), f"resident at most; all bytes arrived, {OUTPUT / 1e6 / seconds:.0f} MB/s")
        table.row("memory.tls.output.growth", max(0, process.peak() - before), "above what it was before")

    def threads(self, table):
        table.head("threads: all that were started, after jobs and output")
        stacks = list(self.tls.kernel.stacks())
        each = ", ".join(f"{name} {touched // 1024}/{reserved // 1024}" for name, reserved, touched in stacks)
        table.row("threads", len(self.tls.kernel.tasks()), unit="threads")
        table.row("stacks.reserved", sum(s[1] for s in stacks))
        table.row("stacks.touched", sum(s[2] for s in stacks), f"KiB of each: {each}")


def run(arguments, environment):
    """This command."""
    return subprocess.run([sys.executable, os.path.abspath(__file__), *arguments], env=environment, capture_output=True, text=True)


def self_test(budgets):
    """Each budget fails one above it and holds at it; what is not in the file has none."""
    for name, (budget, _, _) in budgets.rows.items():
        for measured, holds in ((budget, True), (budget + 1, False)):
            table = Table(budgets)
            table.row(name, measured)
            if bool(table.failed) == holds:
                raise Failed(f"{name} = {measured} should {'hold' if holds else 'fail'}")
    # The whole command, with a program of 1,000 bytes that cannot be run, so that its size is all there is to measure.
    world = Lab()
    program = os.path.join(world.path("target"), TARGETS["x86_64"], "small", "triton")
    os.makedirs(os.path.dirname(program))
    with open(program, "wb") as file:
        file.write(bytes(1000))
    for budget, arguments, expected in ((1000, ["x86_64"], 0), (999, [], 1), (1000, ["mips"], 1), (1000, ["amiga"], 1)):
        with open(world.path("budgets"), "w") as file:
            file.write(f"size.x86_64 {budget} - bytes\n")
        environment = dict(os.environ, CARGO_TARGET_DIR=world.path("target"), BUDGETS=world.path("budgets"))
        environment.pop("TRITON", None)
        done = run(arguments, environment)
        if done.returncode != expected:
            raise Failed(f"a program of 1000 bytes with a budget of {budget} and the arguments {arguments} exits {done.returncode}: {done.stderr}")
        if (expected == 0) != ("sizes only" in done.stdout) or "all budgets hold" in done.stdout:
            raise Failed(f"a program that cannot be run should leave sizes only: {done.stdout}")
    done = run([], dict(environment, TRITON=program))
    if done.returncode != 1 or program not in done.stderr:
        raise Failed(f"TRITON={program}, which cannot be run, exits {done.returncode}: {done.stderr}")
    print(f"\neach of {len(budgets.rows)} budgets holds at itself and fails above itself")


def main(arguments):
    budgets = Budgets(os.environ.get("BUDGETS", os.path.join(lab.ROOT, "bench", "budgets")))
    if arguments == ["--self-test"]:
        return self_test(budgets)
    unknown = [a for a in arguments if a not in TARGETS]
    if unknown:
        raise Failed(f"unknown target {unknown[0]}; there are {', '.join(TARGETS)}, and --self-test")
    given = os.environ.get("TRITON")
    program = given or binary("x86_64", "small")
    runs = os.path.isfile(program) and os.access(program, os.X_OK)
    if given and not runs:
        raise Failed(f"TRITON={given}: there is no program that can be run; without TRITON it is {binary('x86_64', 'small')}")
    table, world = Table(budgets), Lab()
    sizes(table, world, arguments)
    if runs:
        try:
            measured = Measured(world, program)
            measured.idle(table)
            measured.jobs(table)
            measured.output(table)
            measured.threads(table)
        except Failed:
            world.show_logs()
            raise
    else:
        table.absent("memory, idle, wire, flash", "not measured: needs cross/build.sh x86_64, or TRITON=BINARY")
    for name in budgets.rows:
        if runs and not name.startswith("size.") and name not in table.seen:
            table.failed.append(f"{name}: has a budget and was not measured")
    if table.failed:
        print()
        for line in table.failed:
            print(line, file=sys.stderr)
        raise SystemExit(1)
    print("\nall budgets hold" if runs else "\nsizes only: their budgets hold, and nothing else was measured")


try:
    main(sys.argv[1:])
except Failed as failure:
    print(f"bench/budgets.sh: {failure}", file=sys.stderr)
    raise SystemExit(1) from None
except KeyboardInterrupt:
    raise SystemExit(130) from None
