"""Interlock: a release control plane for machine-learning models that serve live decisions."""
