"""The arrows between the modules, read from the sources: the core knows no edge, the loop no client library."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stream_monitor

ROOT = Path(stream_monitor.__file__).parent
PACKAGE = "stream_monitor"

IMPURE = frozenset({"time", "random", "os", "socket", "logging", "pathlib", "asyncio", "threading", "subprocess", "sys"})
PURE_LIBRARIES = frozenset({"numpy", "orjson", "msgpack", "msgspec", "river"})
CLIENTS = frozenset({"confluent_kafka", "redis"})
ASSEMBLERS = ("cli", "run", "demo")
EDGE_MAY = ("core", "errors", "ports", "config", "io")


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Full names of what a module imports when it runs: those under `if TYPE_CHECKING` are left out, relative ones resolved."""
    yield from _imports(ast.parse(source), module if is_package else module.rpartition(".")[0])


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children: list[ast.stmt] = node.orelse
        for child in children:
            yield from _imports(child, package)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        # `from stream_monitor import io` names a module, `from stream_monitor.core.events import Alert` an object in one
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module"):
        yield ast.literal_eval(node.args[0]) if node.args and isinstance(node.args[0], ast.Constant) else "importlib"
    for child_node in ast.iter_child_nodes(node):
        yield from _imports(child_node, package)


def part(name: str) -> str:
    """Which part of the package a full name lies in: `core`, `io`, `live` ...; empty for a library."""
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] or PACKAGE if top == PACKAGE else ""


def offences(module: str, source: str, is_package: bool = False) -> list[str]:
    """What a module imports and must not, one sentence each."""
    where = part(module)
    names = sorted(set(imports(source, module, is_package)))
    parts = {part(name) for name in names}
    wrong: list[str] = []
    for name in names:
        library, of = name.partition(".")[0], part(name)
        if where == "core":
            allowed = of in ("core", "errors") if of else _is_pure(library)
        elif where == "io":
            allowed = of in ("", *EDGE_MAY)
        elif where in ("live", "stages", "detect", "ports"):
            allowed = of != "io" and library not in CLIENTS
        else:
            allowed = True
        if not allowed:
            wrong.append(f"{module} imports {name}")
    if where not in ASSEMBLERS and "io" in parts | {where} and parts & {"live", "stages", "detect"}:
        wrong.append(f"{module} puts the edges and the loop together")
    return wrong


def _is_pure(library: str) -> bool:
    return library in PURE_LIBRARIES or (library in sys.stdlib_module_names and library not in IMPURE)


def modules() -> dict[str, Path]:
    """Every module of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_inwards(module: str) -> None:
    path = MODULES[module]
    assert offences(module, path.read_text(encoding="utf-8"), path.name == "__init__.py") == []


def test_every_part_is_looked_at() -> None:
    assert {part(module) for module in MODULES} >= {"core", "io", "live", "stages", "detect", "ports", "run", "cli", "config", "demo"}


def test_the_core_opens_no_files() -> None:
    for module, path in MODULES.items():
        if part(module) == "core":
            calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
            assert not [ast.unparse(call) for call in calls if ast.unparse(call.func) in ("open", "print", "input", "eval", "exec")]


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("core.x", "import time", "time"),
        ("core.x", "import os.path", "os.path"),
        ("core.x", "from random import random", "random.random"),
        ("core.x", "def f():\n    from pathlib import Path", "pathlib.Path"),
        ("core.x", "import pydantic", "pydantic"),
        ("core.x", "import redis", "redis"),
        ("core.x", "from stream_monitor.io.kafka import KafkaSink", "stream_monitor.io.kafka.KafkaSink"),
        ("core.x", "from stream_monitor import config", "stream_monitor.config"),
        ("core.x", "from ..io import kafka", "stream_monitor.io.kafka"),
        ("core.x", "from .. import io", "stream_monitor.io"),
        ("core.x", "import stream_monitor.units", "stream_monitor.units"),
        ("core.x", "import importlib\nimportlib.import_module('socket')", "socket"),
        ("core.x", "if TYPE_CHECKING:\n    pass\nelse:\n    import sys", "sys"),
        ("core.detectors.x", "from ...ports import Log", "stream_monitor.ports.Log"),
        ("io.x", "from stream_monitor.run import Run", "stream_monitor.run.Run"),
        ("io.x", "from stream_monitor import cli", "stream_monitor.cli"),
        ("io.x", "import stream_monitor.demo", "stream_monitor.demo"),
        ("live", "from confluent_kafka import Consumer", "confluent_kafka.Consumer"),
        ("stages", "import redis.exceptions", "redis.exceptions"),
        ("ports", "from stream_monitor.io import topics", "stream_monitor.io.topics"),
        ("live", "from .io.kafka import KafkaSink", "stream_monitor.io.kafka.KafkaSink"),
    ],
)
def test_an_arrow_that_points_outwards_is_found(module: str, source: str, name: str) -> None:
    assert f"{PACKAGE}.{module} imports {name}" in offences(f"{PACKAGE}.{module}", source)


@pytest.mark.parametrize("module", ["config", "errors", "units", "helpers.x", "__main__"])
def test_only_the_assemblers_put_edges_and_loop_together(module: str) -> None:
    source = "from stream_monitor.io import kafka\nfrom stream_monitor.live import Worker"
    name = f"{PACKAGE}.{module}"
    assert offences(name, source) == [f"{name} puts the edges and the loop together"]
    assert offences(f"{PACKAGE}.run", source) == offences(f"{PACKAGE}.demo.x", source) == []


def test_an_edge_that_imports_the_loop_puts_them_together() -> None:
    assert offences(f"{PACKAGE}.io.x", "from stream_monitor import stages") == [
        f"{PACKAGE}.io.x imports {PACKAGE}.stages",
        f"{PACKAGE}.io.x puts the edges and the loop together",
    ]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "core.x",
            "import heapq, numpy as np\nfrom .events import Alert\nfrom stream_monitor.errors import SetupError\nimport river.drift",
        ),
        ("core.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stream_monitor.io.kafka import KafkaSink"),
        ("core.x", "import typing\nif typing.TYPE_CHECKING:\n    import socket"),
        ("io.x", "import time, redis, confluent_kafka\nfrom stream_monitor.ports import Chunk\nfrom . import topics"),
        ("live", "import time\nfrom stream_monitor.stages import Stage"),
    ],
)
def test_what_is_allowed_is_no_offence(module: str, source: str) -> None:
    assert offences(f"{PACKAGE}.{module}", source) == []


def test_a_relative_import_in_a_package_starts_there() -> None:
    assert list(imports("from .base import Detector", f"{PACKAGE}.core.detectors", is_package=True)) == [
        f"{PACKAGE}.core.detectors.base.Detector"
    ]
