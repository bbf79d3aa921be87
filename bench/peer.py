"""A server that speaks the Triton message and nothing else, over TLS: what an agent costs without a Poseidon behind it."""

import base64
import hashlib
import json
import re
import socket
import ssl
import xml.sax.saxutils as xml

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Peer:
    """Takes one agent, with `accept`."""

    def __init__(self, certificate, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(60)
        self.port = self.listener.getsockname()[1]
        self.number = 0
        self.buffer = bytearray()

    def accept(self):
        """Waits for the agent and welcomes it, as a server that takes records and acknowledges them."""
        tcp, _ = self.listener.accept()
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = self.context.wrap_socket(tcp, server_side=True)
        self.socket.settimeout(60)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.receive()
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head).group(1)
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.next("hello")
        self.send("welcome", {"heartbeatSeconds": 3600, "acked": 0})
        self.next("heartbeat")

    def receive(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the agent has gone")
        return data

    def frame(self, opcode, data):
        head = bytes([0x80 | opcode])
        if len(data) < 126:
            head += bytes([len(data)])
        elif len(data) < 1 << 16:
            head += bytes([126]) + len(data).to_bytes(2, "big")
        else:
            head += bytes([127]) + len(data).to_bytes(8, "big")
        self.socket.sendall(head + data)

    def send(self, kind, payload):
        """Sends a message; its id."""
        self.number += 1
        name = f"{self.number:032x}"
        self.frame(1, f"<tritonMessage><type>{kind}</type><id>{name}</id>"
                      f"<payload>{xml.escape(json.dumps(payload))}</payload></tritonMessage>".encode())
        return name

    def fill(self, count):
        while len(self.buffer) < count:
            self.buffer += self.receive()

    def take(self):
        """The next text frame; pings are answered meanwhile."""
        while True:
            self.fill(2)
            opcode, size, at = self.buffer[0] & 15, self.buffer[1] & 127, 2
            if size >= 126:
                at = 4 if size == 126 else 10
                self.fill(at)
                size = int.from_bytes(self.buffer[2:at], "big")
            self.fill(at + 4 + size)
            mask = bytes(self.buffer[at:at + 4])
            data = self.buffer[at + 4:at + 4 + size]
            del self.buffer[:at + 4 + size]
            if opcode == 8:
                raise ConnectionError("the agent closes the connection")
            if opcode != 1 and opcode != 9:
                continue
            whole = int.from_bytes(data, "little") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "little")
            data = whole.to_bytes(size, "little")
            if opcode == 1:
                return data
            self.frame(10, data)

    def next(self, *kinds):
        """The next message of one of these types: its type and its payload as JSON text. What else comes is passed over."""
        while True:
            data = self.take()
            kind = data[data.index(b"<type>") + 6:data.index(b"</type>")].decode()
            if kind == "error" and "error" not in kinds:
                raise ConnectionError(f"the agent says {data.decode()}")
            if kind in kinds:
                begin = data.find(b"<payload>")
                return kind, data[begin + 9:data.rindex(b"</payload>")] if begin >= 0 else b"{}"

    def run(self, argv, ack=True):
        """Runs a job to its end; the bytes of output that came."""
        self.send("command", {"argv": argv})
        count = 0
        while True:
            kind, payload = self.next("output", "result")
            if kind == "result":
                break
            # The data are plain text without anything to escape, by choice of the job.
            begin = payload.index(b'"data":"') + 8
            count += payload.index(b'"', begin) - begin
        result = json.loads(xml.unescape(payload.decode()))
        if result["status"] != "succeeded":
            raise ConnectionError(f"{argv} ended with {result}")
        if ack:
            self.send("ack", {"through": result["sequence"]})
        return count
