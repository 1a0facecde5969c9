"""Measurements against goals, on the real parts: `python -m benchmarks.NAME [--quick] [--json FILE]`, exit 1 where a goal is missed."""
