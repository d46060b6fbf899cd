"""Imports that are put off: a process that was killed is as long away as its start takes."""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec


def put_off(package: str, name: str) -> None:
    """Makes package.name, where it is not imported yet, a module that is executed when an attribute of it is first asked for."""
    full = f"{package}.{name}"
    spec = None if full in sys.modules else find_spec(full)
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[full] = module_from_spec(spec)
    spec.loader.exec_module(module)
    setattr(sys.modules[package], name, module)  # `from package import name` takes it from there; to look it up would execute it
