"""Stream monitor: joins delayed labels on a stream, detects drift online and publishes alerts."""

__version__ = "0.1.0"
