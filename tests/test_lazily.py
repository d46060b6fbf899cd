"""What is put off is there when it is used, and not before."""

from __future__ import annotations

import subprocess
import sys


def test_what_kswin_alone_needs_is_executed_when_kswin_is_used() -> None:
    script = """
import sys
from stream_monitor.core.detectors import create
from stream_monitor.core.settings import DetectorSettings
from stream_monitor.lazily import put_off

put_off("scipy", "stats")
detectors = [create(DetectorSettings(name)) for name in ("adwin", "page_hinkley", "ddm", "kswin")]
assert "scipy.stats._stats_py" not in sys.modules
for i in range(200):
    detectors[-1].update(i % 7)
assert "scipy.stats._stats_py" in sys.modules
from scipy.stats import norm
assert norm.cdf(0) == 0.5
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_is_imported_already_or_does_not_exist_is_left_as_it_is() -> None:
    script = """
import sys
import json.decoder
from stream_monitor.lazily import put_off

put_off("json", "decoder")
put_off("json", "nothing")
assert type(sys.modules["json.decoder"]) is type(sys)
assert "json.nothing" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
