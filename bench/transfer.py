#!/usr/bin/env python3
"""bench/transfer.py [MEGABYTES] [MILLISECONDS]: a file (50 MB) to a device and back, over a relay that delays each byte
so that there and back takes so long (200 ms). Prints MB/s; CARGO_TARGET_DIR and POSEIDON as for the other figures. At
the default delay less than 5 MB/s is a failure."""

import asyncio
import os
import subprocess
import sys
import threading
import time

from lab import Failed, Lab, TARGET, poseidon_program, wait_for

LEAST = 5.0


class Delay:
    """A relay in a thread: what comes goes on `seconds` later, and as much may be on its way as comes."""

    def __init__(self, target, seconds):
        self.target, self.seconds = target, seconds
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self.run, args=(ready,), daemon=True).start()
        ready.wait()

    def run(self, ready):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self.link, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    async def link(self, reader, writer):
        host, port = self.target
        far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))

    async def pump(self, reader, writer):
        line = asyncio.Queue()

        async def take():
            while True:
                try:
                    data = await reader.read(1 << 16)
                except OSError:
                    data = b""
                await line.put((self.loop.time() + self.seconds, data))
                if not data:
                    return

        taking = asyncio.create_task(take())
        while True:
            due, data = await line.get()
            await asyncio.sleep(max(0.0, due - self.loop.time()))
            if not data:
                break
            writer.write(data)
            try:
                await writer.drain()
            except OSError:
                break
        taking.cancel()
        writer.close()


def main():
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    delay = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    triton = os.environ.get("TRITON", os.path.join(TARGET, "debug", "triton"))
    lab = Lab()
    folder = lab.folder
    program = poseidon_program()
    data = os.path.join(folder, "data")
    serve = subprocess.Popen(
        [program, "--data", data, "serve", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    lab.processes.append(serve)
    address = serve.stdout.readline().decode().split("://")[1].split()[0]
    host, port = address.rsplit(":", 1)
    relay = Delay((host, int(port)), delay / 2000)

    def poseidon(*arguments):
        return subprocess.run([program, "--data", data, *arguments], capture_output=True, check=False)

    own = {**os.environ, "TRITON_STATE": os.path.join(folder, "state"), "TRITON_SOCKET": os.path.join(folder, "socket")}
    identifier = subprocess.run([triton, "identifier"], env=own, capture_output=True, check=True).stdout.decode().strip()
    poseidon("register", identifier, "--name", "far")
    agent = subprocess.Popen(
        [triton, "run", "--url", f"ws://127.0.0.1:{relay.port}/triton"], env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    lab.processes.append(agent)
    wait_for("the agent is up", lambda: b" up " in poseidon("agents").stdout.replace(b"\n", b" "))

    here, there, back = (os.path.join(folder, name) for name in ("here", "there", "back"))
    with open(here, "wb") as file:
        file.write(os.urandom(megabytes * 1_000_000))
    slow = []
    for what, arguments in (("push", ("push", here, f"far:{there}")), ("pull", ("pull", f"far:{there}", back))):
        begun = time.monotonic()
        done = poseidon(*arguments)
        seconds = time.monotonic() - begun
        if done.returncode != 0:
            raise Failed(f"{what}: {done.stderr.decode()}")
        rate = megabytes / seconds
        print(f"{what}: {megabytes} MB at {delay} ms there and back in {seconds:.1f} s, {rate:.1f} MB/s")
        if delay <= 200 and rate < LEAST:
            slow.append(what)
    if open(here, "rb").read() != open(back, "rb").read():
        raise Failed("what came back is another file")
    if slow:
        raise Failed(f"less than {LEAST} MB/s: {', '.join(slow)}")


if __name__ == "__main__":
    try:
        main()
    except Failed as e:
        sys.exit(f"bench/transfer.py: {e}")
