"""The log goes to standard error and nowhere else: no file, nothing to rotate. To systemd's journal it says the level of
each line in the form that the journal takes."""
import os
import re
import signal
import subprocess
import unittest

import harness
from base import GatewayCase

LINE = re.compile(r"(<[0-7]>)?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARN|ERROR) [a-z]+(/\d+)? [a-z-]+ ")
LEVEL = {"DEBUG": "<7>", "INFO": "<6>", "WARN": "<4>", "ERROR": "<3>"}


class Journal(GatewayCase):
    def of_stream(self, stream):
        """The gateway's lines when JOURNAL_STREAM names the file that its standard error is, or another one."""
        gw = self.gw
        gw.stop()
        path = os.path.join(gw.dir, "journal-" + stream)
        with open(path, "wb") as log:
            st = os.fstat(log.fileno())
            named = "%d:%d" % (st.st_dev, st.st_ino + (stream != "ours"))
            p = subprocess.Popen([gw.program, "serve", "--config", gw.config_path, "--gates", "1"], stdout=subprocess.DEVNULL,
                                 stderr=log, stdin=subprocess.DEVNULL, env=dict(gw.env, JOURNAL_STREAM=named), cwd=gw.dir,
                                 start_new_session=True)
        read = lambda: open(path).read().splitlines()  # noqa: E731
        try:
            harness.wait_until("it to serve", lambda: any("supervisor started" in line for line in read()))
            gw.psql("nobody-here", self.name, "select 1")
            os.kill(gw.pids("dialer")[0], signal.SIGKILL)
            harness.wait_until("an error", lambda: any("role-died" in line for line in read()))
            harness.wait_until("it to be mended", lambda: all(r["ready"] for r in gw.api("GET", "/v1/status")[1]["roles"]))
        finally:
            p.terminate()
            p.wait(harness.PATIENCE)
        return read()

    def test_each_line_names_its_level_to_the_journal_and_only_there(self):
        lines = self.of_stream("ours")
        roles = set()
        for line in lines:
            m = LINE.match(line)
            self.assertIsNotNone(m, line)
            self.assertEqual(m.group(1), LEVEL[m.group(2)], line)
            roles.add(line.split()[2].split("/")[0])
        self.assertTrue({"supervisor", "gate", "control", "keeper", "recorder", "dialer", "front"} <= roles, roles)
        self.assertTrue(any(line.startswith("<3>") for line in lines) and any(line.startswith("<4>") for line in lines))
        for line in self.of_stream("another"):
            m = LINE.match(line)
            self.assertTrue(m is not None and m.group(1) is None, line)


if __name__ == "__main__":
    unittest.main()
