"""The blocking gates: evaluation, latency, memory, drift. Each answers with a Verdict and never raises."""
