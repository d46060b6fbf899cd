"""Imports every module that enters faults into the table."""

from tests.soak import brokers, crashes, groups, store  # noqa: F401
