"""Imports every module that enters faults into the table."""

from tests.soak import brokers, crashes, groups, inputs, operators, store  # noqa: F401
