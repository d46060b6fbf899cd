"""A detector of the user's own: an entry point, loaded when a configuration names it, and every way in which that fails is said."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import orjson
import pytest

from stream_monitor import plugins
from stream_monitor.config import Config, parse
from stream_monitor.core import detectors
from stream_monitor.core.events import Status
from stream_monitor.core.monitor import Monitor
from stream_monitor.errors import ConfigurationError
from tests.support.observations import judged, run

PAGE = (Path(__file__).parent.parent / "docs" / "detectors.md").read_text()


def block(language: str, about: str) -> str:
    """The block of the page that contains `about`."""
    found: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    [text] = [text for name, text in found if name == language and about in text]
    return text


def install(folder: Path, package: str, code: str, points: dict[str, str]) -> None:
    """What installing a package leaves behind."""
    (folder / f"{package}.py").write_text(code)
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{lines}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; what they bring is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(detectors, "_CLASSES", dict(detectors._CLASSES))
    for name in ("ewma_chart", "broken", "other"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    detectors._parameters.cache_clear()
    return tmp_path


@pytest.fixture
def ewma(site: Path) -> Path:
    """The page's example, installed as its pyproject.toml says."""
    project = tomllib.loads(block("toml", "[project]"))["project"]
    install(site, "ewma_chart", block("python", "class Ewma"), project["entry-points"][plugins.GROUP])
    return site


def configured(*named: object, metrics: tuple[str, ...] = ("error",)) -> Config:
    watched = {"metrics": list(metrics), "slices": [], "detectors": list(named)}
    return parse({"kafka": {"bootstrap_servers": "x"}, "detect": {"maturity": "0s", "default": watched}})


def problem(*named: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configured(*named)
    [one] = caught.value.problems
    assert one.startswith("detect.default.detectors.0: ")
    return one


def test_the_page_s_example_raises_an_alert_and_goes_on_from_a_snapshot(ewma: Path) -> None:
    named = tomllib.loads(block("toml", "[detect.default]"))["detect"]["default"]["detectors"]
    assert named[1] == {"name": "ewma", "limit": 6.0}
    settings = configured(named[1]).detect_settings()
    records = list(judged(6_000, lambda i, _: 0.6 if i >= 4_000 else 0.1))
    _, expected = run(settings, records)
    fired = [alert for alert in expected if alert.status is Status.FIRING]
    assert [(alert.detector, alert.assurance, alert.parameters) for alert in fired] == [
        ("ewma", "uncalibrated", {"weight": 0.05, "limit": 6.0})
    ]
    assert fired[0].statistic > fired[0].threshold
    monitor, before = run(settings, records[:4_005])
    data = orjson.loads(orjson.dumps(monitor.snapshot()))
    _, after = run(settings, records[4_005:], Monitor.restore(settings, "observations", 0, data))
    assert before + after == expected


def test_the_page_s_command_and_tests_pass_on_its_example(ewma: Path) -> None:
    command = block("bash", "testing").split()
    done = subprocess.run(
        [sys.executable, *command[1:]], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ewma), "PATH": ""}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ewma keeps the contract" in done.stdout
    from ewma_chart import Ewma  # type: ignore[import-not-found]

    scope: dict[str, object] = {}
    exec(block("python", "parametrize"), scope)
    for check in scope["CHECKS"]:  # type: ignore[attr-defined]
        scope["test_ewma_keeps_the_contract"](check)  # type: ignore[operator]
    assert scope["Ewma"] is Ewma


def test_a_wrong_parameter_of_it_is_said_with_its_path(ewma: Path) -> None:
    assert "ewma has no parameter 'limits'; it has weight, limit" in problem({"name": "ewma", "limits": 1})
    assert "ewma: weight 0 must lie in" in problem({"name": "ewma", "weight": 0})
    assert "ewma: TypeError" in problem({"name": "ewma", "weight": "x"})


def test_only_what_a_configuration_names_is_loaded(ewma: Path) -> None:
    configured("adwin")
    assert "ewma_chart" not in sys.modules
    assert "ewma" in plugins.found()


def test_one_that_is_not_installed_is_said_with_those_that_are(ewma: Path) -> None:
    said = problem("ewna")
    assert "there is no detector 'ewna'; known are adwin, " in said
    assert "installed packages bring ewma" in said
    assert "stream_monitor.detectors" in said


def test_a_package_that_can_not_be_imported_is_named(site: Path) -> None:
    install(site, "broken", "import not_there_at_all\n", {"mine": "broken:Mine", "nothing": "broken:X"})
    said = problem("mine")
    assert "'mine' of broken 1.0, broken:Mine can not be loaded: ModuleNotFoundError" in said
    assert "install its package anew" in said


def test_what_is_no_class_or_lacks_a_part_is_refused_with_what_it_lacks(site: Path) -> None:
    code = "Number = 3\nclass Half:\n    name, reads, budgeted, assurance, parameters = 'half', 'all', True, 'uncalibrated', {}\n"
    code += "class Angry:\n    def __init__(self):\n        raise RuntimeError('not today')\n"
    install(site, "broken", code, {"number": "broken:Number", "half": "broken:Half", "angry": "broken:Angry", "gone": "broken:Gone"})
    assert "'number' of broken 1.0, broken:Number is 3; a class" in problem("number")
    said = problem("half")
    for part in (
        "no method update",
        "no method restore",
        "its reads is 'all'; 'value' or 'score' or 'bit'",
        "says 'uncalibrated'",
        "docs/detectors.md",
    ):
        assert part in said
    assert "angry: RuntimeError: not today" in problem("angry")
    assert "AttributeError" in problem("gone")


def test_two_packages_of_one_name_are_refused(ewma: Path) -> None:
    install(ewma, "other", "", {"ewma": "other:Ewma"})
    assert "several packages bring a detector 'ewma': " in problem("ewma")


def test_a_package_can_not_take_the_place_of_a_built_in_one(site: Path) -> None:
    install(site, "other", "raise RuntimeError\n", {"adwin": "other:Adwin"})
    configured("adwin")
    assert "other" not in sys.modules
    with pytest.raises(ValueError, match="another name"):
        detectors.register("adwin", lambda: None)  # type: ignore[arg-type, return-value]
