"""Frozen facts: releases, verdicts, the state of the traffic plane, journal legs. Standard library only."""
