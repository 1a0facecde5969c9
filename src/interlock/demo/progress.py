"""One line at the bottom of the terminal: where a release is, and how far each signal is from halting it."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from interlock.demo.follow import Record


class ReleaseProgress:
    """A progress bar of the planned seconds under traffic. It disappears at the end; where there is no terminal it prints nothing."""

    def __init__(self, console: Console, candidate: str, planned_seconds: float) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._candidate = candidate
        self._task = self._progress.add_task(f"{candidate}: waiting for a worker", total=planned_seconds, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, record: Record) -> None:
        """Move on by one evidence record."""
        kind = record["kind"]
        if kind == "tick":
            self._progress.update(self._task, advance=1.0, description=f"{self._candidate}: {record['phase']}", detail=_signals(record))
        elif kind in {"loaded", "gate", "phase"}:
            name = record.get("phase") or record.get("gate") or "server ready"
            self._progress.update(self._task, description=f"{self._candidate}: {name}")


def _signals(tick: Record) -> str:
    """The signal nearest to its halting line, and the pairs so far."""
    signals = [s for s in tick["signals"] if s["halting_e_value"]]
    if not signals:
        return str(tick["reason"])[:60]
    nearest = max(signals, key=lambda s: s["e_value"] / s["halting_e_value"])
    e_value, line = nearest["e_value"], nearest["halting_e_value"]
    return f"{signals[0]['sample_count']:,} pairs; nearest to halting: {nearest['name']} e={e_value:.2g} of {line:.3g}"
