"""The `interlock` command. Errors are one sentence on stderr: exit 1, or 2 when the stack cannot be started as asked."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from interlock.errors import PolicyError, ReleaseError, ServiceRefused, StateError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Release control plane for ML models.")
profile_app = typer.Typer(add_completion=False, no_args_is_help=True, help="Release profiles.")
app.add_typer(profile_app, name="profile")

State = Annotated[Path | None, typer.Option("--state", help="State directory; INTERLOCK_STATE_DIR, else .interlock.")]
Port = typer.Option(min=0, max=65535, help="0 = any free port.")
Share = typer.Option(min=0, max=10_000, help="Of 10,000 predictions, those whose input is kept for the drift gate (0 = none).")


def main() -> None:
    """Run the command line; every expected failure is one sentence and a non-zero exit."""
    os.environ.setdefault("DO_NOT_TRACK", "true")  # without it MLflow holds up the exit for a minute where there is no internet
    try:
        app()
    except (StateError, PolicyError) as error:
        _fail(error, code=2)
    except ReleaseError as error:
        _fail(error, code=1)


@app.command()
def up(
    model: Annotated[str, typer.Option(help="Registered model that this plane serves.")],
    profile: Annotated[list[str], typer.Option(help="Release profile of what enters Staging; give it again to allow another.")],
    state: State = None,
    live_port: Annotated[int, Port] = 0,
    page_port: Annotated[int, Port] = 0,
    mlflow_port: Annotated[int, Port] = 0,
    prefect_port: Annotated[int, Port] = 0,
    input_share_bps: Annotated[int, Share] = 1000,
) -> None:
    """Start, supervise and stop the whole stack on this machine. Ends with Ctrl-C or SIGTERM."""
    from interlock.adapters.clock import SystemClock
    from interlock.plane.addresses import UpOptions
    from interlock.plane.state_directory import StackAddresses
    from interlock.plane.supervisor import Supervisor
    from interlock.profile.reader import profiles_directory
    from interlock.wiring import caretaker, state_directory

    _check_profiles(profile)  # a stack that could not release anything does not start
    console, directory = Console(stderr=True), state_directory(state)
    data_directory = Path(os.environ.get("INTERLOCK_DATA_DIR") or directory / "data").absolute()
    ports = (live_port, page_port, mlflow_port, prefect_port)
    options = UpOptions(model, tuple(profile), profiles_directory().absolute(), data_directory, *ports, input_share_bps)

    def say(text: str) -> None:
        console.print(f"[dim]interlock[/dim] {text}", highlight=False)

    def on_ready(addresses: StackAddresses) -> None:
        table = Table("part", "address", title="Interlock is up", title_justify="left")
        for part, address in (
            ("live requests", f"{addresses.live_url}/invocations"),
            ("live page", addresses.page_url),
            ("Prefect", addresses.prefect_url.removesuffix("/api")),
            ("MLflow", addresses.mlflow_url),
        ):
            table.add_row(part, address)
        console.print(table)

    say(f"starting in {directory.root}")
    care = caretaker(directory)
    supervisor = Supervisor(
        directory,
        options,
        clock=SystemClock(),
        say=say,
        poll_registry=care.poll,
        on_lost=lambda release_id, candidate: care.lose(release_id),
        on_start=lambda incumbent: care.start(),
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    supervisor.run(on_ready=on_ready)


@app.command()
def adopt(model: str, version: str, state: State = None, server: str = "interlock", threads: int = 4) -> None:
    """Make a version the first incumbent, once it has passed the gates of a first one. Later versions come by a release only."""
    from interlock.control.adoption import adopt_incumbent
    from interlock.status import print_verdicts
    from interlock.wiring import open_services, read_allowed_profile, state_directory

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # so that the server on trial is stopped on the way out
    directory = state_directory(state)
    services = open_services(directory)
    loaded = read_allowed_profile(services.allowed_profiles[0], directory)
    adoption = adopt_incumbent(services, loaded, model, version, server=server, thread_count=threads)
    print_verdicts(adoption.verdicts)
    if not adoption.is_adopted:
        raise ServiceRefused(f"{adoption.version.label} was not adopted: every gate above has to pass, and no option goes around one")
    Console().print(f"{adoption.version.label} serves all requests ({adoption.version.digest})", highlight=False)


@app.command()
def rollback(reason: Annotated[str, typer.Option(help="Why, for the record.")] = "asked for by a person", state: State = None) -> None:
    """All traffic to the incumbent, then the registry in line; prints the seconds of each observed step."""
    from interlock.control.plane_rollback import roll_back_plane
    from interlock.wiring import open_services, state_directory

    receipt = roll_back_plane(open_services(state_directory(state)), reason=reason)
    table = Table("step", "observed", "after seconds", title=f"Rollback to {receipt.incumbent}", title_justify="left")
    for step in receipt.steps:
        table.add_row(step.name, step.observed, f"{step.elapsed_seconds:.3f}")
    Console().print(table)


@app.command()
def status(
    release_id: Annotated[str | None, typer.Argument(help="A release; without it, all of them.")] = None, state: State = None
) -> None:
    """What was released, and how it ended; or one release whole, from its evidence."""
    from interlock.status import print_release, print_releases
    from interlock.wiring import evidence_store, state_directory

    store = evidence_store(state_directory(state))
    if release_id:
        print_release(store, release_id)
    else:
        print_releases(store)


@app.command()
def report(
    release_id: Annotated[str, typer.Argument(help="A release, as `interlock status` lists them.")],
    state: State = None,
    out: Annotated[Path | None, typer.Option(help="Write it here; else beside the evidence, where the live page finds it.")] = None,
) -> None:
    """Write the report of a release anew from its evidence as it is now, whether it has ended or not; needs no stack."""
    from interlock.wiring import evidence_store, state_directory, write_report

    directory = state_directory(state)
    if not (records := evidence_store(directory).read(release_id)):
        raise ServiceRefused(f"there is no evidence of a release {release_id!r}: `interlock status` lists what there is")
    try:
        path = write_report(release_id, records, state=directory, out=out)
    except OSError as error:
        raise ServiceRefused(f"the report cannot be written ({error.strerror}): choose another place with --out") from error
    typer.echo(str(path))


@profile_app.command("check")
def profile_check(names: Annotated[list[str] | None, typer.Argument(help="Profiles; without any, all of them.")] = None) -> None:
    """Read release profiles strictly; exit 2 when one is wrong."""
    from interlock.profile.reader import list_profiles, profiles_directory

    if not (wanted := names or list_profiles()):
        raise PolicyError(f"there is no release profile in {profiles_directory()}: nothing was checked")
    for name, digest in _check_profiles(wanted).items():
        typer.echo(f"{name}: good, {digest}")


@profile_app.command("schema")
def profile_schema() -> None:
    """Print the JSON schema of release profiles, for editors."""
    import json

    from interlock.profile.schema import ReleaseProfile

    typer.echo(json.dumps(ReleaseProfile.model_json_schema(), indent=2))


@app.command()
def demo(
    state: State = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table here.")] = None,
) -> None:
    """Release a good flight-delay model and roll back three bad ones, on live traffic, with no hand on it."""
    from interlock.demo.driver import run_demo

    sys.exit(run_demo(state or Path(".interlock") / "demo", json_file))


def _check_profiles(names: list[str]) -> dict[str, str]:
    """Digest of each profile, once its schema is right and the judge can work with its numbers. PolicyError otherwise."""
    from interlock.control.policy import judge_policy
    from interlock.profile.reader import read_profile

    digests = {}
    for name in names:
        loaded = read_profile(name)
        if loaded.profile.name != name:
            raise PolicyError(f"the profile in {name}.yaml calls itself {loaded.profile.name}: make both the same")
        judge_policy(loaded.profile)
        digests[name] = loaded.digest
    return digests


def _fail(error: ReleaseError, *, code: int) -> None:
    typer.echo(f"interlock: {error}", err=True)
    sys.exit(code)
