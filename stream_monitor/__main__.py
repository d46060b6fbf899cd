"""`python -m stream_monitor` is the same as the `stream-monitor` command."""

from stream_monitor.cli import main

main()
