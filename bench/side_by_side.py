"""Triton beside OpenSSH and dropbear: see side-by-side.sh."""

import json
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import time

import lab
from lab import Agent, Failed, Lab, Poseidon, Process, need, wait_for
from peer import Peer

# Of one measurement; a round has one measurement of each.
TRIPS = 20
BYTES = 100_000_000
IDLE = 60
HEARTBEAT = 30


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def seconds_of(act, times=1):
    begin = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - begin) / times


def tree(pid):
    """A process and all below it."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [pid] + [p for child in file.read().split() for p in tree(int(child))]


def spent(pid):
    """Processor time of a server, its processes that live and those that have ended."""
    for _ in range(100):
        try:
            return sum(Process(p).seconds() for p in tree(pid))
        except (Failed, OSError):
            # One has ended in between: from now on its time is its parent's.
            time.sleep(0.01)
    raise Failed(f"the processes of {pid} come and go too fast to be looked at")


class Ssh:
    """A client of OpenSSH at some server, with a connection for each command or with one for all."""

    def __init__(self, world, port, key, name, warm):
        self.command = [need("ssh", "openssh-client"), "-F", "none", "-p", str(port), "-i", key, "-o", "IdentitiesOnly=yes",
                        "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                        "-o", "LogLevel=ERROR"]
        user = pwd.getpwuid(os.getuid()).pw_name
        if warm:
            self.command += ["-o", f"ControlPath={world.path(name)}.control"]
            world.start(name, [*self.command, "-o", "ControlMaster=yes", "-N", f"{user}@127.0.0.1"])
            wait_for(f"{name} has a connection", lambda: os.path.exists(world.path(name) + ".control"))
        self.command.append(f"{user}@127.0.0.1")

    def trip(self):
        subprocess.run([*self.command, "true"], check=True, stdin=subprocess.DEVNULL)

    def output(self, file):
        return count_output([*self.command, f"cat {file}"])


class Dbclient:
    """dropbear's own client; it has a connection for each command only."""

    def __init__(self, world, port, key):
        converted = world.path("dropbear-client-key")
        done = subprocess.run([need("dropbearconvert", "dropbear-bin"), "openssh", "dropbear", key, converted], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"dropbearconvert fails: {done.stderr}")
        user = pwd.getpwuid(os.getuid()).pw_name
        self.command = [need("dbclient", "dropbear-bin"), "-y", "-y", "-i", converted, "-p", str(port), f"{user}@127.0.0.1"]

    def trip(self):
        subprocess.run([*self.command, "true"], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def output(self, file):
        return count_output([*self.command, f"cat {file}"])


class Protocol:
    """The agent at a server that speaks the Triton message over TLS."""

    def __init__(self, peer):
        self.peer = peer

    def trip(self):
        self.peer.run(["true"])

    def output(self, file):
        return self.peer.run(["cat", file])


class Api:
    """The agent by Poseidon's API, over TLS on both sides; durable in Poseidon's store and in the agent's journal."""

    def __init__(self, agent):
        self.agent, self.poseidon = agent, agent.poseidon

    def trip(self):
        self.poseidon.run(self.agent.name, {"argv": ["true"]})

    def output(self, file):
        job = self.poseidon.call("POST", "/jobs", {"agents": [self.agent.name], "command": {"argv": ["cat", file]}})["jobs"][0]["id"]
        count = 0
        answer = self.poseidon.ask("GET", f"/jobs/{job}/output?follow=true")
        for line in answer:
            if line.startswith(b'{"type":"output"'):
                count += len(json.loads(line)["data"])
        return count


class Command(Api):
    """The agent by `poseidon run`, a process for each command."""

    def __init__(self, world, agent):
        super().__init__(agent)
        host, port = self.poseidon.address
        self.command = [lab.poseidon_program(), "--data", self.poseidon.data, "--url", f"https://{host}:{port}",
                        "--ca-file", world.certificate()[0], "run", agent.name, "--"]

    def trip(self):
        subprocess.run([*self.command, "true"], check=True, stdin=subprocess.DEVNULL)

    def output(self, file):
        return count_output([*self.command, "cat", file])


def count_output(command):
    count = 0
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while data := process.stdout.read1(1 << 20):
            count += len(data)
    if process.returncode != 0:
        raise Failed(f"{command[0]} ended with {process.returncode}")
    return count


def openssh_server(world, key):
    sshd = need("sshd", "openssh-server")
    if not os.path.isdir("/run/sshd"):
        # Its separation of privileges asks for this empty folder; Debian's unit makes it.
        raise Failed("sshd needs the empty folder /run/sshd: mkdir -m 755 /run/sshd")
    port, config = free_port(), world.path("sshd_config")
    with open(config, "w") as file:
        file.write(f"""Port {port}
ListenAddress 127.0.0.1
HostKey {world.path("host-key")}
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile {key}.pub
StrictModes no
PrintMotd no
MaxSessions 100
ClientAliveInterval {HEARTBEAT}
""")
    process, _ = world.start("sshd", in_empty_home(world, [sshd, "-D", "-e", "-f", config]))
    wait_for("sshd listens", lambda: listens(process, port))
    return process, port


def in_empty_home(world, command):
    """The command in a mount namespace in which the user's home is a folder of ours: dropbear takes keys from there only, and no
    start-up file of the user's shell, which ssh runs for each command, makes one slower than the other."""
    home = world.path("home")
    os.makedirs(os.path.join(home, ".ssh"), mode=0o700, exist_ok=True)
    mine = pwd.getpwuid(os.getuid()).pw_dir
    return [need("unshare", "util-linux"), "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', home, mine, *command]


def dropbear_server(world, key):
    dropbear, port = need("dropbear", "dropbear-bin"), free_port()
    host_key = world.path("dropbear-key")
    done = subprocess.run([need("dropbearkey", "dropbear-bin"), "-t", "ecdsa", "-f", host_key], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"dropbearkey fails: {done.stderr}")
    command = in_empty_home(world, [dropbear, "-F", "-E", "-s", "-P", world.path("dropbear.pid"), "-r", host_key,
                                    "-p", f"127.0.0.1:{port}", "-K", str(HEARTBEAT)])
    shutil.copy(key + ".pub", os.path.join(world.path("home"), ".ssh", "authorized_keys"))
    process, _ = world.start("dropbear", command)
    wait_for("dropbear listens", lambda: listens(process, port))
    return process, port


def listens(process, port):
    if process.poll() is not None:
        raise Failed(f"a server ended with {process.returncode}")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def compared(title, unit, values, mine, higher_is_better=False):
    """Prints a median, the spread over the rounds, and how triton's `mine` compare."""
    print(f"\n{title}")
    print(f"  {'':<44} {'median':>9} {'least':>9} {'most':>9}   " + "".join(f"{m + ' : it':>24}" for m in mine))
    medians = {name: statistics.median(rounds) for name, rounds in values.items()}
    for name, rounds in values.items():
        ratios = ""
        for m in mine:
            ratio = medians[m] / medians[name] if medians[name] else float("nan")
            ratios += f"{'' if name == m else f'{ratio:.2f}':>24}"
        print(f"  {name:<44} {medians[name]:>9.2f} {min(rounds):>9.2f} {max(rounds):>9.2f}   {ratios}")
    print(f"  ({unit}; {'above' if higher_is_better else 'below'} 1.00 triton is better)")


def main(arguments):
    rounds = int(arguments[0]) if arguments else 5
    if os.getuid() != 0:
        raise Failed("it must be root: sshd and dropbear log in to an account only then, and dropbear is given a home in a mount namespace")
    program = os.environ.get("TRITON", os.path.join(lab.TARGET, "x86_64-unknown-linux-musl", "small", "triton"))
    if not os.access(program, os.X_OK):
        raise Failed(f"{program} is not built: cross/build.sh x86_64, or TRITON=BINARY")
    world = Lab()
    try:
        measure(world, program, rounds)
    except (Failed, ConnectionError, subprocess.CalledProcessError):
        world.show_logs()
        raise


def measure(world, program, rounds):
    ca, certificate, certificate_key = world.certificate()
    key = world.path("client-key")
    for file in (key, world.path("host-key")):
        subprocess.run([need("ssh-keygen", "openssh-client"), "-q", "-t", "ecdsa", "-N", "", "-f", file], check=True)
    text = world.path("text")
    with open(text, "wb") as file:
        line = b"The quick brown fox jumps over the lazy dog, and the dog does not even look up.\n"
        file.write((line * (BYTES // len(line) + 1))[:BYTES])

    sshd, ssh_port = openssh_server(world, key)
    dropbear, dropbear_port = dropbear_server(world, key)
    poseidon = Poseidon(world, "poseidon", HEARTBEAT, True)
    # Each from a file of its own, so that no page of it counts for two.
    agent = Agent(world, shutil.copy(program, world.path("triton")), "agent", poseidon)
    peer = Peer(certificate, certificate_key)
    state = world.path("raw-state")
    raw, _ = world.start("raw-agent", [shutil.copy(program, world.path("triton-raw")), "run", "--url", f"wss://127.0.0.1:{peer.port}", "--ca-file", ca, "--state", state,
                              "--socket", world.path("raw.sock")])
    peer.accept()

    protocol, api, command = "triton, agent protocol over TLS", "triton, Poseidon's API over TLS", "triton, `poseidon run`"
    contestants = {
        protocol: Protocol(peer),
        api: Api(agent),
        command: Command(world, agent),
        "openssh, warm (ControlMaster)": Ssh(world, ssh_port, key, "warm-openssh", True),
        "openssh, cold": Ssh(world, ssh_port, key, "cold-openssh", False),
        "dropbear by ssh, warm (ControlMaster)": Ssh(world, dropbear_port, key, "warm-dropbear", True),
        "dropbear by dbclient, cold": Dbclient(world, dropbear_port, key),
    }
    servers = dict(zip(contestants, [raw.pid, agent.process.pid, agent.process.pid, sshd.pid, sshd.pid, dropbear.pid, dropbear.pid]))
    trips, rates, trip_costs, byte_costs = ({name: [] for name in contestants} for _ in range(4))
    for contestant in contestants.values():
        contestant.trip()
    for _ in range(rounds):
        for name, contestant in contestants.items():
            before = spent(servers[name])
            trips[name].append(1000 * statistics.median(seconds_of(contestant.trip) for _ in range(TRIPS)))
            trip_costs[name].append(1000 * (spent(servers[name]) - before) / TRIPS)
    for _ in range(rounds):
        for name, contestant in contestants.items():
            before, begin = spent(servers[name]), time.perf_counter()
            count = contestant.output(text)
            rates[name].append(count / 1e6 / (time.perf_counter() - begin))
            byte_costs[name].append((spent(servers[name]) - before) * 1e9 / BYTES)
            # JSON escapes the line's end in the raw protocol, so it may be more.
            if count < BYTES:
                raise Failed(f"{name}: {count} of {BYTES} bytes arrived")

    print(f"triton {program}, poseidon {lab.poseidon_program()}, {rounds} rounds, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    for old in (["ssh", "-V"], ["dropbear", "-V"]):
        print(subprocess.run(old, capture_output=True, text=True).stderr.strip())
    compared("round trip of `true`", f"ms, medians of {TRIPS}", trips, [protocol, api])
    compared(f"output, {BYTES / 1e6:.0f} MB of text", "MB/s", rates, [protocol, command], True)

    compared("the device's processor for a round trip, the job's own included", "ms, means of the rounds, in steps of 0.5", trip_costs, [protocol, api])
    compared("the device's processor for 1 GB of output", "s", byte_costs, [protocol, command])

    # What it is to hold one idle connection: all processes that are there for it, the listener too.
    groups = {
        "triton, TLS": tree(agent.process.pid),
        "openssh": tree(sshd.pid),
        "dropbear": tree(dropbear.pid),
    }
    time.sleep(HEARTBEAT)
    before = {name: sum(Process(pid).switches() for pid in pids) for name, pids in groups.items()}
    time.sleep(IDLE)
    memory, shares, wakes = {}, {}, {}
    for name, pids in groups.items():
        processes = [Process(pid) for pid in pids]
        wakes[name] = [(sum(p.switches() for p in processes) - before[name]) * 60 / IDLE]
        memory[name] = [sum(p.resident() for p in processes) / 1e6]
        shares[name] = [sum(p.proportional() for p in processes) / 1e6]
    compared("resident memory, one idle connection", "MB, all processes of the server", memory, ["triton, TLS"])
    compared("proportional memory of the same", "MB", shares, ["triton, TLS"])
    compared(f"wake-ups a minute, keep-alive every {HEARTBEAT} s (triton's tells the health)", "voluntary context switches", wakes, ["triton, TLS"])


try:
    main(sys.argv[1:])
except (Failed, ConnectionError, subprocess.CalledProcessError) as failure:
    print(f"bench/side-by-side.sh: {failure}", file=sys.stderr)
    raise SystemExit(1) from None
except KeyboardInterrupt:
    raise SystemExit(130) from None
