"""Every route of the query API against the oracle: the same clicks, counted twice."""

import csv
import datetime
import io
import json
import os
import random
import re
import subprocess
import time
import unittest
import urllib.parse
import urllib.request
import uuid

from edge import PATIENCE_S, Edge, now_ms, request
from oracle import AGENTS, LENGTHS_MS, Oracle

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "QUERY.md")
SEED = 20_240_412
ADS = [f"ad {at}" for at in range(9)]
REGIONS = ["DE", "US", "other", None]
# Hours are looked for twice a second and rolled up in steps of milliseconds.
STANDS_STILL_S = 1.5
RATE = ["--rate", "1000"]


def iso_ms(text):
    time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round(time.timestamp() * 1000)


def clicks(rng, count, from_ms, to_ms):
    """NDJSON, some of it twice."""
    lines = []
    for _ in range(count):
        ad = rng.choice(ADS[: rng.randint(1, len(ADS))])
        fields = {"ad_id": ad, "timestamp": rng.randrange(from_ms, to_ms), "request_id": str(uuid.UUID(int=rng.getrandbits(128)))}
        optional = {
            "campaign_id": f"c{ADS.index(ad) % 3}", "advertiser_id": f"a{ADS.index(ad) % 2}", "region": rng.choice(REGIONS),
            "user_id": rng.choice([None, *(f"u{at}" for at in range(200))]), "user_agent": rng.choice(list(AGENTS)) or None}
        lines.append(json.dumps({**fields, **{name: value for name, value in optional.items() if value is not None}}))
    return "\n".join(lines + rng.sample(lines, count // 20))


class Query(unittest.TestCase):
    FLAGS, MINUTES = [], 8
    token = None

    @classmethod
    def setUpClass(cls):
        cls.edge, cls.oracle, cls.rng = Edge(*cls.FLAGS), Oracle(), random.Random(SEED)
        cls.addClassCleanup(cls.edge.close)
        cls.now_ms = now_ms()
        cls.begin_ms = cls.now_ms - cls.MINUTES * 60_000
        # An edge closes windows also while nothing comes: all clicks of these come late.
        until = time.monotonic() + PATIENCE_S
        while (closed := cls.get("/v1/totals")[0]["complete_up_to"]) is None:
            assert time.monotonic() < until, "nothing is closed"
            time.sleep(0.1)
        cls.closed_ms = iso_ms(closed)
        cls.send_some(3_000)
        cls.send_some(300, prefetch=True)
        cls.wait()
        cls.send_some(500)
        cls.wait()

    @classmethod
    def send_some(cls, count, prefetch=False):
        cls.send(clicks(cls.rng, count, cls.begin_ms, cls.now_ms), prefetch)

    @classmethod
    def send(cls, lines, prefetch=False):
        fields = "Sec-Purpose: prefetch\r\n" if prefetch else ""
        with cls.edge.connect() as connection:
            connection.send(request(lines, "application/x-ndjson", fields))
            reply = connection.reply()
        assert reply.status == 202, reply
        cls.oracle.feed(lines, prefetch)

    @classmethod
    def wait(cls):
        until = time.monotonic() + PATIENCE_S
        span = {"from": cls.begin_ms - 60_000, "to": cls.now_ms + 60_000}
        while cls.get("/v1/totals", **span)[0]["gross"] < len(cls.oracle.clicks):
            assert time.monotonic() < until, "not counted"
            time.sleep(0.1)

    @classmethod
    def get(cls, path, **query):
        """An answer as JSON, or text; and its fields."""
        with cls.open(f"{path}?{urllib.parse.urlencode(query)}") as answer:
            body = answer.read().decode()
            is_json = answer.headers["content-type"] == "application/json"
            return json.loads(body) if is_json else body, answer.headers

    @classmethod
    def open(cls, path, **fields):
        if cls.token:
            fields["Authorization"] = f"Bearer {cls.token}"
        asked = urllib.request.Request(f"http://127.0.0.1:{cls.edge.query}{path}", headers=fields)
        return urllib.request.urlopen(asked, timeout=PATIENCE_S)

    def near(self, found, expected, where):
        """A sketch's estimate: the standard error is 1.6 %, and small sets are nearly exact."""
        self.assertLessEqual(abs(found - expected), max(1, 0.06 * expected), where)

    def same(self, found, expected, where):
        gross, net, users = expected
        self.assertEqual((found["gross"], found["net"]), (gross, net), where)
        self.near(found["users"], users, where)

    def agrees(self, path, wanted, **query):
        """One question, whole and page by page, against the oracle."""
        answer, _ = self.get(path, **query, limit=10_000)
        by = {name: query.get(name) for name in ("granularity", "group_by")}
        filters = {"region": query.get("filter_region"), "user_agent": query.get("filter_user_agent")}
        expected = self.oracle.count(int(query["from"]), int(query["to"]), **by, **wanted, **filters)
        where = (path, query)
        self.assertEqual((iso_ms(answer["from"]), iso_ms(answer["to"])), (expected["from_ms"], expected["to_ms"]), where)
        self.same(answer, expected["sums"], where)
        self.assertEqual(answer["click_count"], answer["net"], where)
        self.assertEqual(answer["classes"], expected["classes"], where)
        self.assertEqual(answer["filter"], filters, where)
        if not any(by.values()):
            return self.assertNotIn("rows", answer)
        field = "ad_id" if by["group_by"] == "ad" else by["group_by"]
        rows = {(iso_ms(row["window_start"]), row[field] if field else None): row for row in answer["rows"]}
        self.assertEqual(rows.keys(), expected["rows"].keys(), where)
        self.assertEqual(len(rows), len(answer["rows"]), where)
        for at, row in rows.items():
            self.same(row, expected["rows"][at], (where, at))
        pages, cursor = [], None
        limit = max(7, len(rows) // 3)
        while cursor is not None or not pages:
            page, _ = self.get(path, **query, limit=limit, **({"cursor": cursor} if cursor else {}))
            pages += page["rows"]
            self.assertLessEqual(len(page["rows"]), limit)
            cursor = page.get("next_cursor")
            if not page["rows"]:
                break
        counted = [(row["window_start"], row.get(field), row["gross"], row["net"]) for row in pages]
        whole = [(row["window_start"], row.get(field), row["gross"], row["net"]) for row in answer["rows"]]
        self.assertEqual(counted, whole, where)
        text, _ = self.get(path, **query, format="csv", limit=10_000)
        lines = list(csv.DictReader(io.StringIO(text)))
        table = [(line["window_start"], line.get(field), int(line["gross"]), int(line["net"])) for line in lines]
        self.assertEqual(table, whole, where)

    def span(self):
        """Anywhere around the clicks, at no border of anything."""
        ends = sorted(self.rng.sample(range(self.begin_ms - 120_000, self.now_ms + 60_000), 2))
        return {"from": ends[0], "to": ends[1]}

    def test_counts(self):
        """Every subject by every granularity and group, with filters, over spans drawn at random."""
        subjects = [("/v1/totals", {})]
        subjects += [(f"/v1/ads/{urllib.parse.quote(ad)}/aggregated_count", {"ad_id": ad}) for ad in [ADS[0], ADS[4], "none"]]
        subjects += [(f"/v1/campaigns/{id}/aggregated_count", {"campaign_id": id}) for id in ("c1", "none")]
        subjects += [("/v1/advertisers/a1/aggregated_count", {"advertiser_id": "a1"})]
        filters = [{}, {"filter_region": "DE"}, {"filter_region": "unknown"}, {"filter_user_agent": "mobile"},
                   {"filter_user_agent": "firefox"}, {"filter_region": "US", "filter_user_agent": "bot"}]
        for path, wanted in subjects:
            groups = [None, "region", "device", "agent", "class", *([] if "ad_id" in wanted else ["ad"])]
            for group_by in groups:
                for granularity in [None, *LENGTHS_MS]:
                    asked = {"granularity": granularity, "group_by": group_by, **self.rng.choice(filters), **self.span()}
                    self.agrees(path, wanted, **{name: value for name, value in asked.items() if value is not None})

    def test_invalid(self):
        for ad in ADS:
            span = self.span()
            answer, _ = self.get(f"/v1/ads/{urllib.parse.quote(ad)}/invalid", **span)
            expected = self.oracle.count(span["from"], span["to"], ad_id=ad)
            gross, net, _ = expected["sums"]
            self.assertEqual((answer["gross"], answer["net"], answer["invalid"]), (gross, net, gross - net), ad)
            zeros = {"bot_user_agent": 0, "prefetch": 0}
            invalid = {name: count for name, count in expected["classes"].items() if name != "valid"}
            self.assertEqual(answer["classes"], {**zeros, **invalid}, ad)

    def test_top(self):
        for minutes in (1, 5, 60):
            for query in ({}, {"by": "gross"}, {"filter_region": "DE", "k": 3}, {"filter_region": "US", "by": "gross", "k": 1}):
                answer, _ = self.get("/v1/ads/top_k", window_minutes=minutes, **query)
                window = iso_ms(answer["window_start"]), iso_ms(answer["window_end"])
                self.assertEqual(window[1] - window[0], minutes * 60_000)
                expected = self.oracle.top(*window, query.get("k", 100), query.get("by", "net"), query.get("filter_region"))
                found = [(ad["ad_id"], ad["gross"], ad["net"]) for ad in answer["top_ads"]]
                self.assertEqual(found, expected, (minutes, query))

    def test_versions(self):
        """What came to minutes that were closed is their history; each commit of it made a version."""
        for ad in ADS:
            path, span = f"/v1/ads/{urllib.parse.quote(ad)}", {"from": self.begin_ms - 60_000, "to": self.now_ms + 60_000}
            history, _ = self.get(f"{path}/history", **span, limit=10_000)
            added, versions = {}, {}
            for one in history["corrections"]:
                minute_ms = iso_ms(one["window_start"])
                gross, net = added.get(minute_ms, (0, 0))
                added[minute_ms] = (gross + one["gross_added"], net + one["net_added"])
                versions[minute_ms] = one["version"]
            expected = self.oracle.by_minute(ad, self.closed_ms)
            # Of minutes that were closed meanwhile a part may be.
            self.assertEqual({at: found for at, found in added.items() if at + 60_000 <= self.closed_ms}, expected, ad)
            rows = self.get(f"{path}/aggregated_count", **span, granularity="1m")[0]["rows"]
            for row in rows:
                minute_ms = iso_ms(row["window_start"])
                self.assertEqual(row["state"] == "open", row["version"] == 0, row)
                if row["state"] != "open":
                    self.assertEqual(row["version"], versions.get(minute_ms, 1), row)

    def test_ledger(self):
        """What the live stream says of the books, and of the edge."""
        with self.open("/v1/live") as events:
            line = next(line for line in events if line.startswith(b"data: "))
        state, everything = json.loads(line[6:]), self.oracle.count(0, 1 << 45)
        gross, net, _ = everything["sums"]
        invalid = {name: count for name, count in everything["classes"].items() if name != "valid"}
        self.assertEqual(state["ledger"], {"accepted": gross, "gross": gross, "net": net, "invalid": invalid, "difference": 0,
                                           "missing": 0, "gaps": 0})
        edges, _ = self.get("/v1/edges")
        self.assertEqual([(edge["presence"], edge["clicks"]) for edge in edges["edges"]], [("live", gross)])

    def test_etag(self):
        """A settled answer is not sent again."""
        path = f"/v1/totals?from={self.now_ms - 300_000}&to={self.now_ms - 120_000}"
        with self.open(path) as answer:
            etag = answer.headers["etag"]
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.open(path, **{"If-None-Match": etag})
        self.assertEqual(refused.exception.code, 304)
        refused.exception.close()

    def test_document(self):
        """The commands of docs/QUERY.md, as pasted; what it refuses, and nothing else, is refused."""
        with open(DOCUMENT, encoding="utf-8") as file:
            blocks = re.findall(r"^```sh\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
        blocks = [block for block in blocks if "/v1/live" not in block]
        self.assertGreaterEqual(len(blocks), 5)
        for block in blocks:
            commands = block.replace("127.0.0.1:8090", f"127.0.0.1:{self.edge.query}")
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], capture_output=True, text=True, timeout=PATIENCE_S)
            self.assertEqual((done.returncode, done.stderr), (0, ""), block)
            self.assertEqual('"status":400' in done.stdout, "granularity=2m" in block, done.stdout)
            if "If-None-Match" in block:
                self.assertEqual(done.stdout, "304\n", block)


class Aged(Query):
    """The same of hours that are rolled up, with clicks that came before, while and after they were; through a kill; with tokens."""

    FLAGS, MINUTES = ["--dedup-window", "4h"], 200
    # Its commands have no token.
    test_document = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.roll_up()
        # From here on clicks come to rows of all grains.
        cls.send_some(400)
        cls.wait()
        cls.edge.kill()
        cls.edge.start()
        cls.send_some(300)
        cls.wait()
        cls.token, cls.scoped = cls.edge.token("--all", *RATE), cls.edge.token("--campaign", "c1", *RATE)
        cls.edge.wants_tokens()

    @classmethod
    def roll_up(cls):
        """Waits until there are rows of hours, and no more come: all that can be is rolled up."""
        until, hours, since = time.monotonic() + PATIENCE_S, 0, 0
        while hours == 0 or time.monotonic() - since < STANDS_STILL_S:
            assert time.monotonic() < until, f"{hours} rows of hours"
            found = cls.edge.metric('tollgate_global_rows{grain="hour"}')
            if found != hours:
                hours, since = found, time.monotonic()
            time.sleep(0.1)
        assert cls.edge.metric('tollgate_global_rows{grain="minute"}') > hours

    def test_room(self):
        """What an edge's own store takes, and its disk has, is told where the edge is looked after."""
        self.assertGreater(self.edge.metric("tollgate_global_store_bytes"), 0)
        self.assertGreater(self.edge.metric("tollgate_global_disk_free_bytes"), 0)

    def test_scope(self):
        """Who may see one campaign sees of every answer what is of it."""
        own = {ad for at, ad in enumerate(ADS) if at % 3 == 1}
        span = {"from": self.begin_ms - 60_000, "to": self.now_ms + 60_000}
        cls = type(self)
        cls.token, all_token = cls.scoped, cls.token
        self.addCleanup(setattr, cls, "token", all_token)
        of_it = {"campaign_id": "c1"}
        for granularity in [None, *LENGTHS_MS]:
            for group_by in (None, "ad", "region", "class"):
                asked = {"granularity": granularity, "group_by": group_by, **self.span()}
                asked = {name: value for name, value in asked.items() if value is not None}
                self.agrees("/v1/totals", of_it, **asked)
                self.agrees("/v1/campaigns/c1/aggregated_count", of_it, **asked)
                self.agrees("/v1/advertisers/a1/aggregated_count", {**of_it, "advertiser_id": "a1"}, **asked)
        for ad in ADS:
            path = f"/v1/ads/{urllib.parse.quote(ad)}"
            self.agrees(f"{path}/aggregated_count", {**of_it, "ad_id": ad}, granularity="1h", **span)
            invalid, _ = self.get(f"{path}/invalid", **span)
            gross, net, _ = self.oracle.count(span["from"], span["to"], ad_id=ad, **of_it)["sums"]
            self.assertEqual((invalid["gross"], invalid["net"]), (gross, net), ad)
            # What came to an ad of several campaigns is nobody's to see, and without a catalogue any ad may be one.
            self.assertEqual(self.get(f"{path}/history", **span)[0]["corrections"], [], ad)
        self.agrees("/v1/campaigns/c2/aggregated_count", {"campaign_id": "nobody's"}, **span)
        for minutes in (1, 5, 60):
            answer, _ = self.get("/v1/ads/top_k", window_minutes=minutes)
            window = iso_ms(answer["window_start"]), iso_ms(answer["window_end"])
            found = [(ad["ad_id"], ad["gross"], ad["net"]) for ad in answer["top_ads"]]
            self.assertEqual(found, self.oracle.top(*window, 100, **of_it), minutes)
        with self.open("/v1/live") as events:
            line = next(line for line in events if line.startswith(b"data: "))
        state = json.loads(line[6:])
        self.assertIsNone(state.get("ledger"))
        self.assertLessEqual({ad["ad_id"] for ad in state["top_ads"]["ads"]}, own)


if __name__ == "__main__":
    unittest.main()
