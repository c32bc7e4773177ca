"""The query API is what its OpenAPI document says, as Schemathesis sees it: every answer is of its schema, whatever is valid is answered,
whatever is not is refused, and nothing makes the server fail."""

import json
import os
import re
import subprocess
import time
import unittest
import urllib.request
import uuid

from edge import PATIENCE_S, Edge, click, now_ms

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCHEMATHESIS = os.path.join(ROOT, "target", "schemathesis", "bin", "st")
# A stream has no end, so nobody could wait for its answer.
WITHOUT_LIVE = "^(?!/v1/live$)"
RUNS_S = 300
EVENT_STREAM = "text/event-stream"
# Runs where Schemathesis is, which brings a validator. Each state is of its own schema, and not with one field more or as the other's.
VALIDATE = """
import json, sys, jsonschema_rs
document, states = json.load(sys.stdin)
def validator(schema):
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
for name, state in states.items():
    validator({"$ref": name}).validate(state)
    for other in states.keys() - {name}:
        assert not validator({"$ref": other}).is_valid(state), f"{name} is a {other}"
    for part in (state, state["clicks_per_second"], state["top_ads"], state["edges"][0], state.get("ledger", state)):
        part["more"] = 1
        assert not validator({"$ref": name}).is_valid(state), f"a field more: {part}"
        del part["more"]
"""


class OpenApi(unittest.TestCase):
    def served(self):
        self.assertTrue(os.path.exists(SCHEMATHESIS), "Schemathesis is not there: run scripts/schemathesis")
        edge = Edge()
        self.addCleanup(edge.close)
        for at in range(40):
            name, user = f"ad_{at % 4}", str(uuid.uuid4())
            sent = click(name, timestamp=now_ms() - at * 7_000, user_id=user, region="DE", campaign_id="c", advertiser_id="a")
            self.assertEqual(edge.post(sent).status, 202)
        until = time.monotonic() + PATIENCE_S
        while edge.totals()["gross"] < 40:
            self.assertLess(time.monotonic(), until, "not counted")
            time.sleep(0.1)
        return edge

    def state(self, edge, token):
        """The first live state with a ranking in it."""
        fields = {"Authorization": f"Bearer {token}"} if token else {}
        asked = urllib.request.Request(f"http://127.0.0.1:{edge.query}/v1/live", headers=fields)
        until = time.monotonic() + PATIENCE_S
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as events:
            self.assertEqual(events.headers["content-type"], EVENT_STREAM)
            for line in events:
                self.assertLess(time.monotonic(), until, "no ranking")
                if line.startswith(b"data: ") and (state := json.loads(line[6:]))["top_ads"] is not None:
                    return state

    def test_live_states_are_as_documented(self):
        edge = self.served()
        with urllib.request.urlopen(f"http://127.0.0.1:{edge.query}/openapi.json") as answer:
            document = json.load(answer)
        answers = document["paths"]["/v1/live"]["get"]["responses"]["200"]["content"][EVENT_STREAM]
        of_all, of_scope = (schema["$ref"] for schema in answers["x-event-data"]["state"]["oneOf"])
        states = {of_all: self.state(edge, None)}
        token = edge.token("--campaign", "c")
        edge.wants_tokens()
        states[of_scope] = self.state(edge, token)
        python = os.path.join(os.path.dirname(SCHEMATHESIS), "python")
        run = subprocess.run([python, "-c", VALIDATE], input=json.dumps([document, states]), capture_output=True, text=True, timeout=RUNS_S)
        self.assertEqual((run.returncode, run.stderr), (0, ""))

    def test_every_route_is_as_documented(self):
        edge = self.served()
        command = [SCHEMATHESIS, "run", f"http://127.0.0.1:{edge.query}/openapi.json", "--include-path-regex", WITHOUT_LIVE,
                   "--seed", "12", "--max-examples", "40", "--generation-database", "none", "--no-color"]
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": os.path.dirname(__file__),
                       "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "default"}
        run = subprocess.run(command, cwd=edge.folder.name, env=environment, capture_output=True, text=True, timeout=RUNS_S)
        self.assertEqual(run.returncode, 0, run.stdout[-6000:] + run.stderr[-2000:])
        tested = re.search(r"Tested: (\d+)", run.stdout)
        self.assertTrue(tested and int(tested[1]) == 13, run.stdout[-2000:])


if __name__ == "__main__":
    unittest.main()
