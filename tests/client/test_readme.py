"""The README's commands, as pasted: they run, and they show what the README says that they show."""

import json
import os
import re
import subprocess
import time
import unittest

from edge import Edge, NotStarted, PATIENCE_S

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")


def pasted():
    """The block of shell commands that posts clicks."""
    with open(README, encoding="utf-8") as file:
        blocks = re.findall(r"^```sh\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
    blocks = [block for block in blocks if "curl" in block]
    assert len(blocks) == 1, f"the README has {len(blocks)} blocks with curl, and one is meant to be pasted"
    return blocks[0]


def shell(commands):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0 and not done.stderr, f"{done.returncode} {done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines()]


class Readme(unittest.TestCase):
    def setUp(self):
        self.commands = pasted()
        try:
            self.edge = Edge(ports=[])
        except NotStarted:
            # The default ports are taken on this machine.
            self.edge = Edge()
            for default, port in (("8080", self.edge.clicks), ("8090", self.edge.query)):
                self.assertIn(f"127.0.0.1:{default}/", self.commands)
                self.commands = self.commands.replace(f"127.0.0.1:{default}/", f"127.0.0.1:{port}/")
        self.addCleanup(self.edge.close)

    def test_the_pasted_commands_count_one_click_once_also_after_a_kill(self):
        first, second, count = shell(self.commands)
        self.assertEqual(first, {"accepted": 1, "duplicates": 0, "rejected": 0})
        self.assertEqual(second, {"accepted": 0, "duplicates": 1, "rejected": 0})
        self.assertLessEqual(count["click_count"], 1)
        asking = self.commands.rstrip().splitlines()[-1]
        self.assertIn("aggregated_count", asking)
        self.asked(asking)
        self.edge.kill()
        self.edge.stay()
        self.edge.start()
        self.asked(asking)

    def asked(self, asking):
        """The two seconds that the README waits may be short on a busy machine: asks until the click is counted."""
        until = time.monotonic() + PATIENCE_S
        while shell(asking)[0]["click_count"] != 1:
            self.assertLess(time.monotonic(), until, "the click is not counted")
            time.sleep(0.2)
