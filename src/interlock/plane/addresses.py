"""Where the stack listens: chosen once, and kept while anything of it runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from interlock.errors import StateError
from interlock.plane.envoy_settings import INPUT_SHARE_BPS
from interlock.plane.process import choose_port
from interlock.plane.stack import Ports
from interlock.plane.state_directory import StackAddresses


@dataclass(frozen=True, slots=True)
class UpOptions:
    """
    What `interlock up` was asked for. Port 0 means any free one.

    input_share_bps: of users' predictions, those whose input is kept for the drift gate, in basis points; 0 keeps none.
    """

    model_name: str
    profile_names: tuple[str, ...]
    profiles_directory: Path
    data_directory: Path
    live_port: int = 0
    page_port: int = 0
    mlflow_port: int = 0
    prefect_port: int = 0
    input_share_bps: int = INPUT_SHARE_BPS


def choose_ports(options: UpOptions, former: Mapping[str, int]) -> Ports:
    """
    Those that were asked for, or any free ones; where processes of a killed supervisor still listen (`former`), the same again.

    Raises:
        StateError: a port that was asked for is in use.
    """
    asked = {"live": options.live_port, "page": options.page_port, "mlflow": options.mlflow_port, "prefect": options.prefect_port}
    if former.keys() == {field.name for field in fields(Ports)} and all(port in (0, former[name]) for name, port in asked.items()):
        return replace(Ports(**former), page=_same_or_other(former["page"], asked["page"]))
    chosen = {name: choose_port(port, name=name) for name, port in asked.items()}
    while len({*chosen.values()}) < len(chosen) or not {"envoy_admin", "collector"} <= chosen.keys():
        chosen |= {name: choose_port(0, name=name) for name in ("envoy_admin", "collector")}
    return Ports(**chosen)


def _same_or_other(former: int, asked: int) -> int:
    """The port of the former supervisor itself, which nobody has held since it was killed."""
    try:
        return choose_port(former, name="page")
    except StateError:
        return choose_port(asked, name="page")


def stack_addresses(options: UpOptions, ports: Ports) -> StackAddresses:
    """The addresses of a stack that this process supervises."""
    at = "http://127.0.0.1"
    return StackAddresses(
        supervisor_pid=os.getpid(),
        live_url=f"{at}:{ports.live}",
        page_url=f"{at}:{ports.page}",
        envoy_admin_url=f"{at}:{ports.envoy_admin}",
        collector_url=f"{at}:{ports.collector}",
        mlflow_url=f"{at}:{ports.mlflow}",
        prefect_url=f"{at}:{ports.prefect}/api",
        model_name=options.model_name,
        profile_names=list(options.profile_names),
        profiles_directory=str(options.profiles_directory),
        data_directory=str(options.data_directory),
    )
