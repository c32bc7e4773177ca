"""Clicks as clients send them: the bodies of the contract, every shape of request, and the same counts after a restart."""

import subprocess
import unittest
import uuid

from edge import BINARY, PATIENCE_S, Edge, chunked, click, now_ms, request


def outcome(accepted=0, duplicates=0, rejected=0):
    return {"accepted": accepted, "duplicates": duplicates, "rejected": rejected}


# As they stand in the contract but for the time, which has to be of today: a click from 2024 is refused as too old.
BODIES = [
    '{"ad_id":"ad_1","timestamp":MILLISECONDS,"user_id":"u1","request_id":"0190d5a4-…"}',
    '{"ad_id":"ad_1","user_id":"u1","impression_id":"imp_1","event_type":"click","timestamp":SECONDS,"signature":"…"}',
    '{"ad_id":"ad_1","click_timestamp":SECONDS,"user_id":"u1","ip":"203.0.113.9","country":"US","user_agent":"Mozilla/5.0 …"}',
    '{"adId":"ad_1","impressionId":"imp_1","timestamp":MILLISECONDS,"userId":"u1"}',
]


class Clicks(unittest.TestCase):
    def setUp(self):
        self.edge = Edge()
        self.addCleanup(self.edge.close)

    def took(self, reply, status=202, **expected):
        self.assertEqual((reply.status, reply.json()), (status, outcome(**expected)), reply)
        self.assertEqual(reply.fields["content-type"], "application/json")

    def test_the_four_bodies_count_once_each_through_sigterm_and_kill(self):
        milliseconds = now_ms()
        bodies = [
            body.replace("MILLISECONDS", str(milliseconds)).replace("SECONDS", str(milliseconds // 1000)) for body in BODIES
        ]
        for body in bodies:
            self.took(self.edge.post(body), accepted=1)
        for body in bodies:
            self.took(self.edge.post(body), duplicates=1)
        counts = self.edge.counted("ad_1", 4)
        self.assertEqual((counts["click_count"], counts["users"]), (counts["net"], 1), counts)
        self.assertEqual(self.edge.terminate(), 0, self.edge.said())
        for stop in (None, self.edge.kill, self.edge.kill):
            if stop is not None:
                stop()
            self.edge.start()
            for body in bodies:
                self.took(self.edge.post(body), duplicates=1)
            again = self.edge.counted("ad_1", 4)
            self.assertEqual([again[name] for name in ("gross", "net", "users")],
                             [counts[name] for name in ("gross", "net", "users")])
        self.assertEqual(self.edge.totals()["gross"], 4)

    def test_a_click_of_2024_is_refused_as_too_old_and_says_so(self):
        reply = self.edge.post('{"ad_id":"ad_1","timestamp":1712908800123,"user_id":"u1","request_id":"r"}')
        self.assertEqual(reply.status, 422)
        errors = [{"index": 0, "reason": "too_old", "field": "timestamp"}]
        self.assertEqual(reply.json(), {**outcome(rejected=1), "errors": errors})

    def test_every_shape_is_taken_and_repeated_as_duplicates(self):
        hundred = [click("shapes", user_id=f"u{n % 7}") for n in range(100)]
        piped = [click("shapes") for _ in range(32)]
        single = [click("shapes") for _ in range(10)]
        array = [click("shapes") for _ in range(5)]
        with self.edge.connect() as connection:
            for kind in ("accepted", "duplicates"):
                connection.send(request("\n".join(hundred), "application/x-ndjson"))
                self.took(connection.reply(), **{kind: 100})
                connection.send(b"".join(request(one) for one in piped))
                for _ in piped:
                    self.took(connection.reply(), **{kind: 1})
                for one in single:
                    connection.send(request(one))
                    self.took(connection.reply(), **{kind: 1})
                connection.send(request("[" + ", ".join(array) + "]"))
                self.took(connection.reply(), **{kind: 5})
        self.assertEqual(self.edge.counted("shapes", 147)["users"], 7)
        self.assertEqual(self.edge.metric("tollgate_clicks_received_total"), 294)
        self.assertEqual(self.edge.metric("tollgate_clicks_accepted_total"), 147)
        self.assertEqual(self.edge.metric("tollgate_clicks_duplicate_total"), 147)

    def test_the_addresses_are_taken_again_at_once_after_a_kill(self):
        self.edge.stay()
        for round in range(8):
            with self.edge.connect() as connection:
                connection.send(request(click("again")))
                self.took(connection.reply(), accepted=1)
                self.edge.kill()
            self.edge.start()
        self.edge.counted("again", 8)

    def test_an_address_of_another_is_named_with_the_way_out(self):
        folder = self.edge.folder.name
        other = subprocess.run([BINARY, "up", "--data-dir", f"{folder}/other", "--query-listen", "127.0.0.1:0",
                                "--admin-listen", "127.0.0.1:0", "--listen", f"127.0.0.1:{self.edge.clicks}"],
                               capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual((other.returncode, other.stdout), (69, ""))
        self.assertIn(f"127.0.0.1:{self.edge.clicks}", other.stderr)
        self.assertIn("--listen", other.stderr)

    def test_a_hundred_pipelined_requests_with_a_killed_edge_count_once(self):
        clicks = [click("killed") for _ in range(100)]
        acknowledged = 0
        with self.edge.connect() as connection:
            connection.send(b"".join(request(one) for one in clicks))
            for _ in range(40):
                self.took(connection.reply(), accepted=1)
                acknowledged += 1
            self.edge.kill()
        self.edge.start()
        with self.edge.connect() as connection:
            connection.send(b"".join(request(one) for one in clicks))
            replies = [connection.reply().json() for _ in clicks]
        self.assertTrue(all(reply == outcome(duplicates=1) for reply in replies[:acknowledged]), replies)
        self.edge.counted("killed", 100)

    def test_a_browsers_beacon(self):
        lines = click("beacon") + "\n" + click("beacon") + "\n"
        for body, clicks in ((click("beacon"), 1), (lines, 2), ("[" + click("beacon") + "]", 1)):
            self.took(self.edge.post(body, "text/plain;charset=UTF-8"), accepted=clicks)
        self.edge.counted("beacon", 4)

    def test_chunked_bodies_of_any_cut(self):
        with self.edge.connect() as connection:
            for sizes in ([], [1] * 20, [5, 60, 1]):
                connection.send(chunked(click("chunked"), sizes))
                self.took(connection.reply(), accepted=1)
            for byte in chunked("[" + click("chunked") + "," + click("chunked") + "]", [3, 7]):
                connection.send(bytes([byte]))
            self.took(connection.reply(), accepted=2)
        self.edge.counted("chunked", 5)

    def test_expect_100_continue(self):
        whole = request(click("expect"), fields="Expect: 100-continue\r\n")
        head = whole[: whole.index(b"\r\n\r\n") + 4]
        with self.edge.connect() as connection:
            for _ in range(2):
                connection.send(head)
                self.assertEqual(connection.reply().status, 100)
                connection.send(whole[len(head):])
                self.assertEqual(connection.reply().status, 202)
            connection.send(request(click("expect"), "text/html", "Expect: 100-continue\r\n")[:-1])
            self.assertEqual(connection.reply().status, 415, "a refusal comes instead of 100")
        self.edge.counted("expect", 1)

    def test_one_bad_click_never_drops_its_batch(self):
        same = str(uuid.uuid4())
        lines = [click("batch", request_id=same), "{oops", click("batch", request_id=same), '{"timestamp":1}',
                 click("batch"), click("batch", timestamp="yesterday"), click("x" * 65), click("batch", ip=4)]
        reply = self.edge.post("\r\n".join(lines), "application/x-ndjson")
        errors = [(error["index"], error["reason"], error.get("field")) for error in reply.json()["errors"]]
        self.assertEqual(errors, [(1, "malformed", None), (3, "missing_field", "ad_id"), (5, "bad_time", "timestamp"),
                                  (6, "too_long", "ad_id"), (7, "wrong_type", "ip")])
        self.assertEqual((reply.status, {**reply.json(), "errors": 0}),
                         (202, {**outcome(accepted=2, duplicates=1, rejected=5), "errors": 0}))
        self.edge.counted("batch", 2)

    def test_no_more_than_a_hundred_errors_are_listed(self):
        reply = self.edge.post("\n".join(["{}"] * 150), "application/x-ndjson")
        self.assertEqual((reply.status, reply.json()["rejected"], len(reply.json()["errors"])), (422, 150, 100))
        self.assertEqual([error["index"] for error in reply.json()["errors"]], list(range(100)))

    def test_a_request_wholly_received_is_answered_when_the_edge_stops(self):
        with self.edge.connect() as connection, self.edge.connect() as idle:
            connection.send(b"".join(request(click("stop")) for _ in range(50)))
            self.took(connection.reply(), accepted=1)
            self.assertEqual(self.edge.terminate(), 0, self.edge.said())
            answered = 1
            while connection.received or connection.more():
                reply = connection.reply()
                self.took(reply, accepted=1)
                answered += 1
            idle.ends()
        self.assertEqual(answered, 50)
        self.edge.start()
        self.edge.counted("stop", 50)
