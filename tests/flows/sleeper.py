"""A flow that does nothing, for runs whose process is killed."""

import time

from prefect import flow


@flow(name="release")
def sleeper(model_name: str, version: str, profile_name: str) -> None:
    """Wait to be killed."""
    time.sleep(120)
