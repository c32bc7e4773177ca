"""HTTP as a raw socket sees it: every status of the contract, what is said with it, and what becomes of the connection."""

import json
import socket
import time
import unittest

from edge import Edge, click, request

def raw(line="POST /v1/clicks HTTP/1.1", fields="Host: h\r\nContent-Type: application/json\r\n", body=""):
    return (f"{line}\r\n{fields}\r\n{body}").encode()


def framed(framing, body="{}", line="POST /v1/clicks HTTP/1.1"):
    return raw(line, f"Host: h\r\nContent-Type: application/json\r\n{framing}", body)


def chunks(body):
    return framed("Transfer-Encoding: chunked\r\n", body)


# name | what is sent | status. The connection lives: the next request on it is answered.
SURVIVED = [
    ("not JSON", request("hello"), 400),
    ("no clicks", request(""), 400),
    ("no clicks in an array", request("[]"), 400),
    ("an array without end", request('[{"ad_id":"a"}'), 400),
    ("another path", request("{}").replace(b"/clicks", b"/click"), 404),
    ("another path, chunked", chunks("2\r\n{}\r\n0\r\n\r\n").replace(b"/clicks", b"/"), 404),
    ("GET", raw("GET /v1/clicks HTTP/1.1", "Host: h\r\n"), 405),
    ("PUT with a body", request("{}").replace(b"POST", b"PUT"), 405),
    ("DELETE", raw("DELETE /v1/clicks HTTP/1.1", "Host: h\r\n"), 405),
    ("another type", request("{}", "text/html"), 415),
    ("no type", request("{}").replace(b"Content-Type: application/json\r\n", b""), 415),
    ("another charset", request("{}", "application/json; charset=latin1"), 415),
    ("a coded body", request("{}", fields="Content-Encoding: gzip\r\n"), 415),
    ("every click refused", request('{"ad_id":"a"}'), 422),
    ("an unknown method", request("{}").replace(b"POST", b"BREW"), 501),
]

# name | what is sent | status. Answered once, with `Connection: close`, and nothing after it is read.
FATAL = [
    ("length and coding", framed("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"), 400),
    ("repeated length", framed("Content-Length: 2\r\nContent-Length: 2\r\n"), 400),
    ("list of lengths", framed("Content-Length: 2, 2\r\n"), 400),
    ("signed length", framed("Content-Length: +2\r\n"), 400),
    ("negative length", framed("Content-Length: -2\r\n"), 400),
    ("bare LF", request("{}").replace(b"\r\n", b"\n", 1), 400),
    ("bare LF after a field", request("{}").replace(b"127.0.0.1\r\n", b"127.0.0.1\n"), 400),
    ("bare CR", framed("X: a\rb\r\nContent-Length: 2\r\n"), 400),
    ("NUL", framed("X: a\0b\r\nContent-Length: 2\r\n"), 400),
    ("obs-fold", framed("X: a\r\n b\r\nContent-Length: 2\r\n"), 400),
    ("space before a colon", framed("Content-Length : 2\r\n"), 400),
    ("no Host", request("{}").replace(b"Host: 127.0.0.1\r\n", b""), 400),
    ("two Hosts", request("{}", fields="Host: i\r\n"), 400),
    ("a request line of two words", raw("GET /", ""), 400),
    ("chunk size of no number", chunks("g\r\n{}\r\n0\r\n\r\n"), 400),
    ("chunk longer than its size", chunks("2\r\n{}}\r\n0\r\n\r\n"), 400),
    ("no length", framed("", ""), 411),
    ("a length over the limit", framed("Content-Length: 1048577\r\n"), 413),
    ("a chunk over the limit", chunks("100001\r\n{}"), 413),
    ("another expectation", request("{}", fields="Expect: 200-ok\r\n"), 417),
    ("a coding before chunked", framed("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501),
    ("chunked twice", framed("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 501),
    ("HTTP/2", raw("PRI * HTTP/2.0", "", "SM\r\n\r\n"), 505),
]

LIMITS = ["--head-bytes-max", "1KiB", "--headers-max", "8", "--body-bytes-max", "4KiB", "--batch-clicks-max", "3",
          "--connections-max", "3", "--head-timeout", "400ms", "--body-timeout", "400ms", "--idle-timeout", "2s",
          "--send-timeout", "500ms", "--reply-bytes-max", "4KiB"]

# As the two tables above, for an edge with small limits: name | what is sent | status | whether the connection ends.
LIMITED = [
    ("a long target", raw(f"POST /v1/clicks?{'x' * 1100} HTTP/1.1"), 414, True),
    ("a long field", framed(f"X: {'x' * 1100}\r\nContent-Length: 2\r\n"), 431, True),
    ("many fields", framed("X: x\r\n" * 7 + "Content-Length: 2\r\n"), 431, True),
    ("a long body", request("x" * 4097), 413, True),
    ("chunks too many", chunks("800\r\n" + "x" * 2048 + "\r\n801\r\n" + "x" * 2049 + "\r\n0\r\n\r\n"), 413, True),
    ("clicks too many", request("\n".join(["{}"] * 4), "application/x-ndjson"), 413, False),
]


class Conformance(unittest.TestCase):
    def start(self, *flags):
        edge = Edge(*flags)
        self.addCleanup(edge.close)
        return edge

    def refused(self, reply, status, ends):
        """A refusal tells a program by its status, and a person by its sentence, what to do."""
        self.assertEqual(reply.status, status, reply)
        self.assertEqual(reply.fields.get("connection"), "close" if ends else None, reply)
        if status == 422:
            self.assertEqual(reply.json()["rejected"], 1)
            return
        self.assertEqual(reply.fields["content-type"], "application/problem+json")
        self.assertEqual(reply.fields.get("allow"), "POST" if status == 405 else None)
        self.assertEqual("retry-after" in reply.fields, status == 503)
        problem = reply.json()
        self.assertEqual((problem["status"], problem["title"]), (status, reply.phrase))
        self.assertRegex(problem["detail"], r"^[A-Z].{30,}\.$")

    def case(self, edge, name, data, status, ends):
        with self.subTest(name), edge.connect() as connection:
            good = request(click("conformance"))
            connection.send(good + data + good)
            self.assertEqual(connection.reply().status, 202, "the reply before")
            self.refused(connection.reply(), status, ends)
            if ends:
                connection.ends()
            else:
                self.assertEqual(connection.reply().json(), {"accepted": 0, "duplicates": 1, "rejected": 0})

    def test_every_refusal_between_two_requests(self):
        edge = self.start()
        for name, data, status in SURVIVED:
            self.case(edge, name, data, status, False)
        for name, data, status in FATAL:
            self.case(edge, name, data, status, True)
        edge.counted("conformance", len(SURVIVED) + len(FATAL))

    def test_every_limit_has_its_own_answer(self):
        edge = self.start(*LIMITS)
        for name, data, status, ends in LIMITED:
            self.case(edge, name, data, status, ends)
        edge.counted("conformance", len(LIMITED))

    def test_head_gets_no_body(self):
        edge = self.start()
        with edge.connect() as connection:
            connection.send("HEAD /v1/clicks HTTP/1.1\r\nHost: h\r\n\r\n" + request(click()).decode())
            self.assertEqual(connection.reply(head_only=True).status, 405)
            self.assertEqual(connection.reply().status, 202)

    def test_close_and_http_1_0_are_answered_and_end(self):
        edge = self.start()
        for data in (request(click(), fields="Connection: close\r\n"),
                     request(click()).replace(b"HTTP/1.1", b"HTTP/1.0")):
            with edge.connect() as connection:
                connection.send(data + request(click()))
                reply = connection.reply()
                self.assertEqual((reply.status, reply.fields.get("connection")), (202, "close"))
                connection.ends()

    def test_a_half_closed_connection_is_answered(self):
        edge = self.start()
        with edge.connect() as connection:
            connection.send(request(click()) * 1 + request(click()) + request(click())[:-5])
            connection.finish()
            self.assertEqual([connection.reply().status for _ in range(2)], [202, 202])
            connection.ends()

    def test_a_drip_of_bytes_does_not_extend_a_deadline(self):
        edge = self.start(*LIMITS)
        whole = request(click())
        body_at = whole.index(b"\r\n\r\n") + 4
        for name, at_once in (("head", 0), ("body", body_at)):
            with self.subTest(name), edge.connect() as connection:
                began = time.monotonic()
                connection.send(whole[:at_once])
                for byte in whole[at_once:]:
                    # 20 ms apart: no pause between two bytes is near the limit of 400 ms.
                    readable = self.wait_readable(connection, 0.02)
                    if readable:
                        break
                    connection.send(bytes([byte]))
                self.refused(connection.reply(), 408, True)
                connection.ends()
                self.assertGreaterEqual(time.monotonic() - began, 0.4)
        edge.counted("ad_1", 0)

    @staticmethod
    def wait_readable(connection, seconds):
        connection.socket.settimeout(seconds)
        try:
            return connection.more()
        except TimeoutError:
            return False
        finally:
            connection.socket.settimeout(60)

    def test_an_idle_connection_ends_without_a_word(self):
        edge = self.start(*LIMITS)
        with edge.connect() as connection:
            connection.send(request(click()))
            self.assertEqual(connection.reply().status, 202)
            began = time.monotonic()
            connection.ends()
            self.assertGreaterEqual(time.monotonic() - began, 1.9)

    def test_a_slow_reader_is_cut_off_and_nobody_else_waits(self):
        edge = self.start(*LIMITS)
        with edge.connect(receive_bytes=4096) as slow:
            slow.socket.settimeout(0.2)
            flood = request("{}\n{}\n{}", "application/x-ndjson") * 100
            sent, until = 0, time.monotonic() + 60
            with self.assertRaises((ConnectionResetError, BrokenPipeError), msg="the reader is never cut off"):
                while time.monotonic() < until:
                    try:
                        sent += slow.socket.send(flood[sent % len(flood):])
                    except TimeoutError:
                        # Meanwhile another is served.
                        reply = edge.post(click("patient"))
                        self.assertEqual(reply.status, 202)
        self.assertGreater(sent, 0)
        self.assertEqual(edge.post(click("patient")).status, 202)

    def test_one_connection_too_many_is_told_so(self):
        edge = self.start(*LIMITS)
        held = [edge.connect() for _ in range(3)]
        try:
            for connection in held:
                connection.send(request(click()))
                self.assertEqual(connection.reply().status, 202)
            with edge.connect() as fourth:
                self.refused(fourth.reply(), 503, True)
                fourth.ends()
            held.pop().socket.close()
            until = time.monotonic() + 60
            while edge.post(click()).status != 202:
                self.assertLess(time.monotonic(), until, "a place that is free again is never given")
        finally:
            for connection in held:
                connection.socket.close()

    def test_a_fault_among_pipelined_requests_leaves_what_came_before(self):
        edge = self.start()
        before = [request(click("before")) for _ in range(30)]
        after = [request(click("after")) for _ in range(30)]
        with edge.connect() as connection:
            connection.send(b"".join(before) + framed("Content-Length: +2\r\n") + b"".join(after))
            for _ in before:
                reply = connection.reply()
                self.assertEqual((reply.status, reply.fields.get("connection")), (202, None))
            self.refused(connection.reply(), 400, True)
            connection.ends()
        edge.counted("before", 30)
        edge.counted("after", 0)

    def test_any_split_of_bytes_is_one_request(self):
        edge = self.start()
        whole = request(click("split") + "\n" + click("split"), "application/x-ndjson")
        for size in (1, 2, 7, 50):
            with edge.connect() as connection:
                for at in range(0, len(whole), size):
                    connection.send(whole[at:at + size])
                self.assertEqual(connection.reply().status, 202)
        edge.counted("split", 2)

    def test_a_reset_within_a_request_takes_nothing(self):
        edge = self.start()
        lines = request("\n".join([click("reset")] * 10), "application/x-ndjson")
        with edge.connect() as connection:
            connection.send(lines[:-1])
            linger = b"\x01\0\0\0\0\0\0\0"
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.assertEqual(edge.post(click("kept")).status, 202)
        edge.counted("kept", 1)
        edge.counted("reset", 0)


class Queries(unittest.TestCase):
    def test_an_unknown_ad_has_zeros(self):
        edge = Edge()
        self.addCleanup(edge.close)
        answer = edge.count("nobody")
        names = ("click_count", "gross", "net", "users")
        self.assertEqual([answer[name] for name in names], [0, 0, 0, 0], json.dumps(answer))
        self.assertIn("watermark", answer)
