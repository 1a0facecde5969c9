"""The two fixed grids of the count table: divergence nodes and latency bins. Both lose evidence only in the conservative direction."""

import numpy as np
from numpy.typing import NDArray

from interlock.judge.policy import LatencyTolerance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Divergence: 128 equal intervals on [0, 1]. A pair's weight of 4,096 units is shared between the two nodes around its D in
# proportion to the distance (all of it on one node for D = 0 and D = 1). The log of a bet's factor is concave in D, so the chord
# between two nodes lies below it: a product read from the table never exceeds the true one, on either side of the test.
# Rounding D to the nearer bin edge instead would cost half a bin: 0.002 of a tolerance of 0.02, i.e. three times the delay.
INTERVALS = 128
UNITS_PER_PAIR = 4096
DIVERGENCE_NODES: Floats = np.arange(INTERVALS + 1) / INTERVALS
DIVERGENCE_QUANTUM = 1.0 / (INTERVALS * UNITS_PER_PAIR)  # D is rounded down to a multiple of this, 2^-19

# Latency: 0.5 % bins from 0.02 ms to 1e6 ms, one cell below, one above. No answer of its own = the cell above: slower than anything.
# Both arms are rounded against the claim that is tested, so two bins of every tolerance are lost: with bins of 2 % a p99 that is 1.5
# times as slow took 42,300 requests to find instead of 22,500, and an equal median 6,600 to prove instead of 3,600 (decision 0007).
LATENCY_EDGES_MS: Floats = 0.02 * np.power(1.005, np.arange(3556, dtype=np.float64))
LATENCY_LOWER_MS: Floats = np.concatenate([[0.0], LATENCY_EDGES_MS])
LATENCY_UPPER_MS: Floats = np.concatenate([LATENCY_EDGES_MS, [np.inf]])
LATENCY_CELLS = LATENCY_LOWER_MS.size


def share_units(divergences: Floats) -> tuple[Ints, Ints]:
    """
    For each D in [0, 1]: the node at or below it, and how many of its units belong to the node above (0 to 4,095).

    D is rounded down by less than DIVERGENCE_QUANTUM, which is exact for 0, 1 and every node.
    """
    position = np.floor(divergences / DIVERGENCE_QUANTUM).astype(np.int64)
    return position // UNITS_PER_PAIR, position % UNITS_PER_PAIR


def latency_cells(latencies_ms: Floats) -> Ints:
    """The cell of each latency. Cell k covers LATENCY_LOWER_MS[k] <= y < LATENCY_UPPER_MS[k]; infinity is in the last one."""
    return np.searchsorted(LATENCY_EDGES_MS, latencies_ms, side="right").astype(np.int64)


def slower_ms(latencies_ms: Floats, tolerance: LatencyTolerance) -> Floats:
    """The slowest quantile that is still tolerated where the incumbent's is `latencies_ms`: g(y) of the policy."""
    return np.maximum((1 + tolerance.ratio) * latencies_ms, latencies_ms + tolerance.slack_ms)
