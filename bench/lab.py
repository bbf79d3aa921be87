"""What the measurements here share: a Poseidon and agents of their own on loopback, a relay that counts bytes, and
what the kernel says of a process. Whatever was started is ended at exit, by its process id."""

import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """Something that a person has to mend; the text says what."""


def need(program, package):
    """The path of a program, or what to install."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not path:
        raise Failed(f"{program} is not installed: apt-get install {package}")
    return path


def poseidon_program():
    path = os.environ.get("POSEIDON", os.path.join(TARGET, "debug", "poseidon"))
    if not os.access(path, os.X_OK):
        raise Failed(f"{path} is not built: cargo build --package poseidon")
    return path


def wait_for(what, happened, seconds=60):
    """What `happened` returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = happened()
        if result:
            return result
        time.sleep(0.05)
    raise Failed(f"did not happen within {seconds} s: {what}")


class Lab:
    """A temporary folder and the processes that work in it; `patience` is how many seconds an agent or a server may take."""

    def __init__(self, patience=60):
        self.patience = patience
        self.folder = tempfile.mkdtemp(prefix="triton-bench-")
        self.processes = []
        self.logs = []
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, name, arguments, **options):
        """Starts a process whose output goes to NAME.log."""
        log = self.path(name + ".log")
        if log not in self.logs:
            self.logs.append(log)
        with open(log, "wb") as file:
            options.setdefault("stdout", file)
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, **options)
        self.processes.append(process)
        return process, log

    def end(self, process):
        """Ends a process that was started here."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def close(self):
        for process in reversed(self.processes):
            self.end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def show_logs(self):
        """The ends of all logs, for who has to find out what went wrong."""
        for log in self.logs:
            with open(log, errors="replace") as file:
                lines = file.read().splitlines()[-10:]
            for line in lines:
                print(f"{os.path.basename(log)}: {line}", file=sys.stderr)

    def certificate(self):
        """An authority, and a certificate of 127.0.0.1 by it: the files (authority, certificate, key)."""
        ca, certificate, key = self.path("ca.pem"), self.path("cert.pem"), self.path("key.pem")
        if os.path.exists(ca):
            return ca, certificate, key
        openssl = need("openssl", "openssl")
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

        def run(*arguments):
            done = subprocess.run([openssl, *arguments], cwd=self.folder, capture_output=True, text=True)
            if done.returncode != 0:
                raise Failed(f"openssl {arguments[0]} fails: {done.stderr.strip()}")

        run("req", "-x509", *new_key, "-keyout", "ca.key", "-out", ca, "-subj", "/CN=bench", "-days", "2")
        run("req", *new_key, "-keyout", key, "-out", "request.pem", "-subj", "/CN=localhost")
        with open(self.path("names"), "w") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        run("x509", "-req", "-in", "request.pem", "-CA", ca, "-CAkey", "ca.key", "-CAcreateserial",
            "-out", certificate, "-days", "2", "-extfile", "names")
        return ca, certificate, key

    def authorities(self):
        """What a device has: the system's authorities, and our own behind them."""
        bundle = self.path("bundle.pem")
        system = "/etc/ssl/certs/ca-certificates.crt"
        if not os.path.exists(system):
            raise Failed(f"{system} is missing: apt-get install ca-certificates")
        with open(bundle, "wb") as out:
            for name in (system, self.certificate()[0]):
                with open(name, "rb") as file:
                    out.write(file.read())
        return bundle


class Poseidon:
    """The real Poseidon on a port of its own."""

    def __init__(self, lab, name, heartbeat, tls):
        self.lab, self.name, self.data, self.heartbeat, self.tls = lab, name, lab.path(name), heartbeat, tls
        self.address = "127.0.0.1", 0
        self.start()
        with open(os.path.join(self.data, "admin-token")) as file:
            self.token = file.read().strip()

    def start(self):
        """Starts it with what it has stored, where it listened before."""
        arguments = [poseidon_program(), "serve", "--listen", "{}:{}".format(*self.address), "--data", self.data,
                     "--heartbeat-seconds", str(self.heartbeat)]
        if self.tls:
            _, certificate, key = self.lab.certificate()
            arguments += ["--tls-cert", certificate, "--tls-key", key]
        self.process, log = self.lab.start(self.name, arguments)
        self.connection, self.used = None, 0.0

        def listens():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode}")
            with open(log) as file:
                return re.search(r"listens on https?://([0-9.]+):(\d+)", file.read())

        found = wait_for(f"{self.name} listens", listens, self.lab.patience)
        self.address = found.group(1), int(found.group(2))

    def stop(self):
        """Ends it; its data stay."""
        self.lab.end(self.process)

    def connect(self):
        if self.tls:
            context = ssl.create_default_context(cafile=self.lab.certificate()[0])
            connection = http.client.HTTPSConnection(*self.address, timeout=300, context=context)
        else:
            connection = http.client.HTTPConnection(*self.address, timeout=300)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, method, path, body=None):
        """The answer of the API, still to be read."""
        # An idle connection is closed by Poseidon in the end.
        if self.connection is None or time.monotonic() - self.used > 5:
            self.connection = self.connect()
        self.used = time.monotonic()
        self.connection.request(method, "/api/v1" + path, json.dumps(body) if body is not None else None,
                                {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
        return self.connection.getresponse()

    def call(self, method, path, body=None):
        answer = self.ask(method, path, body)
        text = answer.read()
        if answer.status >= 300:
            raise Failed(f"{method} {path} is answered with {answer.status}: {text.decode(errors='replace')}")
        return json.loads(text)

    def run(self, agent, command):
        """Runs a job to its end; its result."""
        job = self.call("POST", "/jobs", {"agents": [agent], "command": command})["jobs"][0]["id"]
        for line in self.ask("GET", f"/jobs/{job}/output?follow=true"):
            event = json.loads(line) if line.strip() else {}
            if event.get("type") == "end":
                ended = event["job"]
        if not ended.get("result"):
            raise Failed(f"the job {job} came to no result: {ended}")
        return ended["result"]


class Relay:
    """Hands on TCP connections and notes the bytes that pass, both ways."""

    def __init__(self, address):
        self.target = address
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        # (time, from the client, bytes); a list's append is atomic.
        self.passed = []
        # The beginning of what the client sent.
        self.beginning = bytearray()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, up in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.pump, args=(source, sink, up), daemon=True).start()

    def pump(self, source, sink, up):
        try:
            while data := source.recv(1 << 16):
                self.passed.append((time.monotonic(), up, len(data)))
                if up and len(self.beginning) < 1 << 16:
                    self.beginning += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                end.close()

    def between(self, begin, end):
        """Bytes in bursts: what lies less than a second apart belongs together."""
        bursts, last = [], None
        for at, _, count in sorted(self.passed):
            if begin <= at < end:
                if last is None or at - last > 1:
                    bursts.append(0)
                bursts[-1] += count
                last = at
        return bursts


class Agent:
    """The real agent, connected."""

    def __init__(self, lab, program, name, poseidon, address=None, extra=()):
        self.name, self.program, self.poseidon = name, program, poseidon
        self.state, self.socket = lab.path(name + "-state"), lab.path(name + ".sock")
        identifier = subprocess.run([program, "identifier", "--state", self.state], check=True,
                                    capture_output=True, text=True).stdout.strip()
        poseidon.call("POST", "/identifiers", {"identifier": identifier, "name": name})
        host, port = address or poseidon.address
        environment = dict(os.environ, SSL_CERT_FILE=lab.authorities())
        scheme = "wss" if poseidon.tls else "ws"
        self.process, _ = lab.start(name, [program, "run", "--url", f"{scheme}://{host}:{port}", "--state", self.state,
                                           "--socket", self.socket, *extra], env=environment)
        self.wait_until_up()
        self.kernel = Process(self.process.pid)

    def wait_until_up(self):
        wait_for(f"{self.name} is up", self.is_up, self.poseidon.lab.patience)

    def is_up(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}")
        agents = self.poseidon.call("GET", "/agents")["agents"]
        return any(a["name"] == self.name and a["state"] == "up" and a.get("health") for a in agents)


class Process:
    """What /proc tells of a process."""

    def __init__(self, pid):
        self.folder = f"/proc/{pid}"

    def text(self, name):
        try:
            with open(f"{self.folder}/{name}") as file:
                return file.read()
        except OSError as error:
            raise Failed(f"the process is gone, or may not be looked at: {error}") from error

    def field(self, name, field):
        """A number of a status file; kB as bytes."""
        found = re.search(rf"^{field}:\s+(\d+)( kB)?", self.text(name), re.MULTILINE)
        if not found:
            raise Failed(f"{self.folder}/{name} has no {field}")
        return int(found.group(1)) * (1024 if found.group(2) else 1)

    def resident(self):
        return self.field("smaps_rollup", "Rss")

    def proportional(self):
        return self.field("smaps_rollup", "Pss")

    def anonymous(self):
        return self.field("smaps_rollup", "Anonymous")

    def peak(self):
        return self.field("status", "VmHWM")

    def forget_peak(self):
        """The peak counts from now on."""
        with open(f"{self.folder}/clear_refs", "w") as file:
            file.write("5")

    def tasks(self):
        return os.listdir(f"{self.folder}/task")

    def switches(self):
        """How often its threads have gone to sleep, which is how often they woke up."""
        return sum(self.field(f"task/{task}/status", "voluntary_ctxt_switches") for task in self.tasks())

    def come_to_rest(self):
        """Waits until all threads have slept for three seconds."""
        def rests():
            before = self.switches()
            time.sleep(3)
            return self.switches() == before
        wait_for("the process comes to rest", rests, 90)

    def seconds(self):
        """Processor time of the process and of those below it that have ended."""
        fields = self.text("stat").rsplit(")", 1)[1].split()
        return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def stacks(self):
        """Of each thread: name, reserved and touched bytes of the mapping that its stack pointer is in."""
        areas, area = [], None
        for line in self.text("smaps").splitlines():
            if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                area = [int(found.group(1), 16), int(found.group(2), 16), 0]
                areas.append(area)
            elif line.startswith("Rss:"):
                area[2] = int(line.split()[1]) * 1024
        for task in sorted(self.tasks(), key=int):
            fields = self.text(f"task/{task}/syscall").split()
            name = self.text(f"task/{task}/comm").strip()
            if len(fields) < 3:
                continue
            pointer = int(fields[-2], 16)
            for begin, end, touched in areas:
                if begin <= pointer < end:
                    yield name, end - begin, touched


class Trace:
    """All system calls of a process and its threads, by strace."""

    def __init__(self, lab, pid, name, only=None):
        self.lab, self.file = lab, lab.path(name + ".strace")
        arguments = [need("strace", "strace"), "-f", "-y", "-ttt", "-s", "0", "-o", self.file, "-p", str(pid)]
        if only:
            arguments += ["-e", "trace=" + only]
        self.process, log = lab.start(name + "-strace", arguments)

        def attached():
            with open(log) as file:
                text = file.read()
            if self.process.poll() is not None:
                raise Failed(f"strace cannot watch the agent: {text.strip()}")
            return "attached" in text

        wait_for("strace attaches", attached)

    def stop(self):
        """The calls: (thread, time, name, the file it was for, the rest of the line)."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        calls = []
        with open(self.file, errors="replace") as file:
            for line in file:
                # What began before the watch, and the second half of a call that another one interrupted.
                if "restart_syscall" in line or "resumed>" in line:
                    continue
                if found := re.match(r"(\d+)\s+([0-9.]+) (\w+)\((?:\d+<([^>]*)>)?(.*)", line):
                    calls.append(found.groups())
        return calls
