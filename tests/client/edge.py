"""A client of tollgate that shares no code with it: starts the binary, speaks HTTP over plain sockets, asks for counts."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid

BINARY = os.environ["TOLLGATE_BINARY"]
# Beyond every deadline that a test relies on, so that a hang fails and does not hang.
PATIENCE_S = 60
SMALL = ["--segment-bytes", "4MiB", "--dedup-memory-bytes", "16MiB", "--recv-buffers", "64", "--drain-delay", "0s"]
ANY_PORT = ["--listen", "127.0.0.1:0", "--query-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
READY = re.compile(r"ready listen=(\S+):(\d+) query=(\S+):(\d+) admin=(\S+):(\d+)\n")


class Edge:
    """One tollgate on a data directory of its own; `start` again goes on with it."""

    def __init__(self, *flags, ports=ANY_PORT):
        self.folder = tempfile.TemporaryDirectory(prefix="tollgate-client-")
        self.flags = [*SMALL, *flags]
        self.ports = ports
        self.process = None
        self.start()

    def start(self):
        """Starts it and waits for the line that says where it listens."""
        environment = {"PATH": os.environ.get("PATH", "")}
        with open(os.path.join(self.folder.name, "stderr"), "ab") as errors:
            self.process = subprocess.Popen(
                [BINARY, "up", "--data-dir", os.path.join(self.folder.name, "data"), *self.ports, *self.flags],
                stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
        with self.process.stdout as stdout:
            line = stdout.readline()
        found = READY.fullmatch(line)
        if found is None:
            self.kill()
            said = self.said()
            self.folder.cleanup()
            raise NotStarted(f"{line!r}, exit {self.process.returncode}: {said}")
        self.clicks, self.query, self.admin = (int(found[port]) for port in (2, 4, 6))

    def said(self):
        with open(os.path.join(self.folder.name, "stderr"), encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def terminate(self):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def token(self, *flags):
        """One that `tollgate token create` makes; it is in force soon."""
        words = [BINARY, "token", "create", "--data-dir", os.path.join(self.folder.name, "data"), *flags]
        return subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True, timeout=PATIENCE_S).stdout.strip()

    def wants_tokens(self):
        """Waits until who has none is refused."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.totals()
            except urllib.error.HTTPError as refused:
                with refused:
                    assert refused.code == 401, refused
                return
            assert time.monotonic() < until, "tokens are not in force"
            time.sleep(0.1)

    def stay(self):
        """From now on it listens where it does."""
        named = (("--listen", self.clicks), ("--query-listen", self.query), ("--admin-listen", self.admin))
        self.ports = [word for flag, port in named for word in (flag, f"127.0.0.1:{port}")]

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.folder.cleanup()

    def connect(self, receive_bytes=None):
        return Connection(self.clicks, receive_bytes)

    def post(self, body, media_type="application/json"):
        """One request on a connection of its own."""
        with self.connect() as connection:
            connection.send(request(body, media_type))
            return connection.reply()

    def count(self, ad_id):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.query}/v1/ads/{ad_id}/aggregated_count") as answer:
            return json.load(answer)

    def totals(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.query}/v1/totals") as answer:
            return json.load(answer)

    def counted(self, ad_id, expected):
        """The count, once it is what is expected: cuts come every second. It is never more than that meanwhile."""
        until = time.monotonic() + PATIENCE_S
        while True:
            answer = self.count(ad_id)
            assert answer["gross"] <= expected, f"{ad_id}: {answer}, and {expected} were accepted"
            if answer["gross"] == expected:
                return answer
            assert time.monotonic() < until, f"{ad_id}: {answer}, not {expected}"
            time.sleep(0.1)

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.split()[1]) for line in lines if re.match(re.escape(name) + r"[{ ]", line)]
        return sum(values)


class NotStarted(Exception):
    """The binary did not become ready."""


class Reply:
    """A reply as a strict reader of RFC 9112 sees it."""

    def __init__(self, status, phrase, fields, body):
        self.status, self.phrase, self.fields, self.body = status, phrase, fields, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.fields} {self.body!r}"


class Connection:
    """A socket, and what came in on it so far."""

    def __init__(self, port, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        self.received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def finish(self):
        """Half-close: nothing more is sent, everything is still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def more(self):
        data = self.socket.recv(65536)
        self.received += data
        return bool(data)

    def take(self, length):
        while len(self.received) < length:
            assert self.more(), f"the connection ended within a reply: {self.received!r}"
        taken, self.received = self.received[:length], self.received[length:]
        return taken

    def reply(self, head_only=False):
        """The next reply; fails where it is not well-formed or does not come."""
        while b"\r\n\r\n" not in self.received:
            assert self.more(), f"the connection ended where a reply should be: {self.received!r}"
        head = self.take(self.received.index(b"\r\n\r\n") + 4).decode("ascii")
        first, *lines = head[:-4].split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) ([A-Z][A-Za-z -]*)", first)
        assert found, f"not a status line: {first!r}"
        fields = {}
        for line in lines:
            field = re.fullmatch(r"([A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)", line)
            assert field, f"not a field: {line!r}"
            assert field[1].lower() not in fields, f"repeated: {line!r}"
            fields[field[1].lower()] = field[2]
        status = int(found[1])
        if status == 100:
            assert not fields, f"an interim reply says nothing more: {fields}"
            return Reply(status, found[2], fields, b"")
        assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", fields["date"]), fields
        body = b"" if head_only else self.take(int(fields["content-length"]))
        return Reply(status, found[2], fields, body)

    def ends(self):
        """Waits for FIN; fails where anything else comes."""
        assert not self.received, f"after the last reply: {self.received!r}"
        assert not self.more(), f"after the last reply: {self.received!r}"


def now_ms():
    return time.time_ns() // 1_000_000


def click(ad_id="ad_1", **fields):
    """A click as a program would write it, with an id of its own."""
    given = {"ad_id": ad_id, "timestamp": now_ms(), "user_id": "u1", "request_id": str(uuid.uuid4()), **fields}
    return json.dumps(given, separators=(",", ":"))


def request(body, media_type="application/json", fields=""):
    body = body.encode() if isinstance(body, str) else body
    head = f"POST /v1/clicks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\n{fields}"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def chunked(body, sizes):
    """A request whose body comes in chunks of these sizes, and then the rest."""
    body = body.encode()
    head = "POST /v1/clicks HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = []
    for size in [*sizes, len(body)]:
        part, body = body[:size], body[size:]
        if part:
            parts.append(f"{len(part):X}\r\n".encode() + part + b"\r\n")
    return head.encode() + b"".join(parts) + b"0\r\n\r\n"
