"""Imports every module that enters faults into the table, in the order in which they are run."""

from tests.soak import crashes  # noqa: F401, I001
