"""The effects: one file a kind. Prefect policy (names, retries, time-outs) lives here; decisions do not."""
