"""Figures, and how to get them again (README.md)."""
