"""The query API is what its OpenAPI document says, as Schemathesis sees it: every answer is of its schema, whatever is valid is answered,
whatever is not is refused, and nothing makes the server fail."""

import os
import re
import subprocess
import time
import unittest
import uuid

from edge import PATIENCE_S, Edge, click, now_ms

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCHEMATHESIS = os.path.join(ROOT, "target", "schemathesis", "bin", "st")
# A stream has no end, so nobody could wait for its answer.
WITHOUT_LIVE = "^(?!/v1/live$)"
RUNS_S = 300


class OpenApi(unittest.TestCase):
    def test_every_route_is_as_documented(self):
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
