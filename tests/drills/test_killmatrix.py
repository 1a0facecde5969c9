"""Ten kills of the kill matrix on a real stack under 110 requests a second: no share outlives its lease, and all agree afterwards."""

from pathlib import Path

import pytest

from benchmarks.killmatrix import SEED, Asked, run
from benchmarks.killmatrix_cells import QUICK_CELLS
from benchmarks.killmatrix_record import missed_goals
from benchmarks.killmatrix_table import print_results
from interlock.terminal import wide_console

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_ten_kills_leave_no_share_without_a_lease_and_no_disagreement(tmp_path: Path) -> None:
    console = wide_console()
    asked = Asked(QUICK_CELLS, len(QUICK_CELLS), SEED, tmp_path / "killmatrix.json", is_resumed=False, root=tmp_path / "stacks")
    results = run(asked, console)
    print_results(results, console)
    assert len(results.kills) >= len(QUICK_CELLS)
    assert {str(kill.cell): missed for kill in results.kills if (missed := missed_goals(kill))} == {}
