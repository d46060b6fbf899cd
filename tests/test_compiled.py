"""The compiled core (hatch_build.py) does what its source does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hatch_build import MODULES, compile_into

ROOT = Path(__file__).parents[1]


def everything(path: Path) -> list[bytes]:
    """What tests/support/everything.py prints where modules are looked for in `path` first."""
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    program = "import runpy; runpy.run_module('tests.support.everything', run_name='__main__')"
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.splitlines()


def test_the_compiled_core_gives_the_same_alerts_and_the_same_state_to_the_last_byte(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "stream_monitor"
    try:
        built = compile_into(ROOT, tmp_path, optimise="0")
    except SystemExit as missing:
        pytest.fail(str(missing))
    assert len(built) == len(MODULES) + 1  # a door for each, and what they share
    for source in (ROOT / "stream_monitor").rglob("*.py"):
        there = package / source.relative_to(ROOT / "stream_monitor")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(source.read_bytes())

    interpreted, compiled = everything(ROOT), everything(package.parent)

    assert (interpreted[0], compiled[0]) == (b"interpreted", b"compiled")
    assert interpreted[1:] == compiled[1:]
    said = b"".join(interpreted)
    for kind in ("concept_drift", "data_drift", "prediction_drift", "performance", "data_quality", "fairness"):
        assert f'"kind":"{kind}"'.encode() in said
