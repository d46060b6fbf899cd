"""Compiles what detection does with each value, from the same source: `HATCH_BUILD_HOOKS_ENABLE=1 pip install .`

`python hatch_build.py` does so in place, for benchmarks and tests; `git clean -fX stream_monitor` takes it back.

mypyc turns the modules below into an extension, which is imported in their place. It does what they do, to the last bit (a test holds
the two together): floats are doubles in both, and the compiler must not fuse a multiplication with an addition, which some do by
themselves. The other modules mostly wait for C already, or are seldom asked.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = Path("stream_monitor/core")
MODULES = (
    "budget", "categories", "confusion", "coverage", "cycles", "dependence", "detectors/e_detector", "detectors/page_hinkley", "fairness",
    "judging", "maturity", "mixes", "monitor", "novelty", "rare", "reference", "service_levels", "signals", "streams", "tallied",
    "versions", "waiting",
)  # fmt: skip

# To read the types of numpy takes minutes, and nothing here has one of them.
TYPES = """
[mypy]
ignore_missing_imports = True
[mypy-numpy.*,river.*,scipy.*]
follow_imports = skip
follow_imports_for_stubs = True
"""


class Compile(BuildHookInterface):  # type: ignore[type-arg]
    """The hook of pyproject.toml. Nothing of what it builds is left among the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        self._work = Path(mkdtemp())
        built = compile_into(Path(self.root), self._work)
        build_data["force_include"].update({str(path): str(path.relative_to(self._work / "lib")) for path in built})
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        shutil.rmtree(self._work)


def compile_into(root: Path, work: Path, optimise: str = "3") -> list[Path]:
    """Builds the extension from the sources under `root`; its files, under work/lib. `optimise`: the compiler's -O."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    if shutil.which(shlex.split(os.environ.get("CC") or "cc")[0]) is None:  # it may be called through another program, such as a cache
        raise SystemExit("no C compiler is found: install gcc or clang, or leave HATCH_BUILD_HOOKS_ENABLE out to do without")
    os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} -ffp-contract=off"
    types = work / "mypy.ini"
    types.write_text(TYPES)
    before = Path.cwd()
    os.chdir(root)
    try:
        arguments = ["--config-file", str(types), "--cache-dir", str(work / "cache"), *(str(CORE / f"{name}.py") for name in MODULES)]
        extensions = mypycify(arguments, opt_level=optimise, debug_level="0", multi_file=True, target_dir=str(work / "c"))
        command = build_ext(Distribution({"name": "stream-monitor", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(work / "lib"), str(work / "o")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    return sorted(path for path in (work / "lib").rglob("*") if path.is_file())


def main() -> None:
    root = Path(__file__).parent
    for old in (*root.glob("*__mypyc.*.so"), *(root / CORE).rglob("*.so")):  # not everywhere: an environment may lie in here
        old.unlink()
    with TemporaryDirectory() as work:
        for built in compile_into(root, Path(work)):
            shutil.copy(built, root / built.relative_to(Path(work) / "lib"))


if __name__ == "__main__":
    main()
