"""Faults on real servers: `python -m tests.soak --minutes N`. Each is one entry of a table; docs/faults.md lists what they showed."""
