"""The terminal, or what stands in for it."""

from rich.console import Console

LOG_WIDTH_COLUMNS = 150


def wide_console(*, markup: bool = True) -> Console:
    """The terminal; where there is none, 150 columns, so that tables stay whole in a log or a pipe."""
    console = Console(highlight=False, markup=markup)
    return console if console.is_terminal else Console(highlight=False, markup=markup, width=LOG_WIDTH_COLUMNS)
