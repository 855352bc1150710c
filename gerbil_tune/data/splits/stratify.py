"""Dividing events at random, by whole groups, so that each part lies over the arena as all events do.

Legend: N events, G groups, M cells of the arena, D axes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.files.index_files import Indices
from gerbil_tune.errors import DatasetError
from gerbil_tune.units import counted

FloatArray = npt.NDArray[np.float64]

_MOST_CELLS_A_SIDE = 8
_EVENTS_A_CELL = 2
"""Events of a held-out part that a cell should hold on average."""
_SIZE_TOLERANCE = 0.05
"""Share of its size by which a part may miss its size for the sake of a better distribution."""
_EXACT_GROUPS = 512
"""Groups among which the subset of the best size is found exactly."""
_RECONSIDERED = 128
"""Groups, of more than can be searched exactly, that are taken back to find a better size."""
_STARTS = 32
"""Random choices that are mended, of which the best is taken, where the groups are few."""
_ROUNDS = 600
_INSIDE_TRIED, _OUTSIDE_TRIED = 64, 512
_STALLED_ROUNDS = 10


@dataclass(frozen=True)
class ArenaCells:
    """Where each event lies on a grid over the arena.

    Attributes:
        numbers: int64 (N,), the cell of each event; ``num_cells - 1`` where the location is not finite.
        grid: Cells along x and y.
    """

    numbers: Indices
    grid: tuple[int, int]

    @property
    def num_cells(self) -> int:
        """M, with one cell for locations that are not finite."""
        return self.grid[0] * self.grid[1] + 1


def find_cells(
    locations_mm_ND: npt.NDArray[np.floating],
    arena_mm: tuple[float, ...] | None,
    smallest_part: int,
) -> ArenaCells:
    """Lay a grid over x and y, fine enough to matter and coarse enough for the smallest part.

    Args:
        locations_mm_ND: (N, D) in mm from the arena's centre; beyond a wall counts to the cell at the wall.
        arena_mm: Full widths of x, y and perhaps z; None: the extent of the locations.
        smallest_part: Events of the smallest part; it gets two a cell on average, in at most 8 by 8 cells.
    """
    side = int(np.clip(round((smallest_part / _EVENTS_A_CELL) ** 0.5), 1, _MOST_CELLS_A_SIDE))
    places = np.asarray(locations_mm_ND[:, :2], dtype=np.float64)
    finite = np.isfinite(places).all(axis=1)
    numbers = np.full(len(places), side * side, dtype=np.int64)
    if finite.any():
        known = places[finite]
        if arena_mm is None:
            low, high = known.min(axis=0), known.max(axis=0)
        else:
            high = np.array(arena_mm[:2]) / 2
            low = -high
        share = (known - low) / np.maximum(high - low, np.finfo(np.float64).tiny)
        # Clipped before the cast: a location far outside would not fit an integer.
        columns = np.clip(np.floor(share * side), 0, side - 1).astype(np.int64)
        numbers[finite] = columns[:, 0] * side + columns[:, 1]
    return ArenaCells(numbers, (side, side))


def total_variation(cells: ArenaCells, part: Indices, whole: Indices) -> float:
    """Distance between where some events lie and where all do: half the sum over cells of |p - q|.

    Args:
        cells: The grid.
        part: Places of some events.
        whole: Places of all.

    Returns:
        0 (alike) to 1 (no cell in common).
    """
    p = np.bincount(cells.numbers[part], minlength=cells.num_cells) / len(part)
    q = np.bincount(cells.numbers[whole], minlength=cells.num_cells) / len(whole)
    return float(np.abs(p - q).sum() / 2)


def split_events(
    num_events: int,
    *,
    groups: Indices | None,
    fraction: float,
    seed: int,
    num_held_out: int = 2,
    test_fraction: float | None = None,
    cells: ArenaCells | None = None,
    source: str = "the data",
) -> list[Indices]:
    """Divide events into a training part and held-out parts.

    Held-out parts come as close to their size as whole groups allow, to 5 %. Among the ways to do so, one
    is chosen at random and then mended, group for group, until the part lies over the arena as all events
    do. Where each event goes by itself, sizes are exact and each cell gives its share, rounded.

    Args:
        num_events: N, events to divide.
        groups: int64 (N,), events of one number stay together; None: each goes by itself.
        fraction: Of all events, for validation.
        seed: Any integer; the same seed divides the same events alike.
        num_held_out: 1 (validation) or 2 (validation and test).
        test_fraction: Of all events, for test; None: as for validation.
        cells: Where the events lie; None: their places do not count.
        source: Named in errors.

    Returns:
        Places of the events in ascending order: training, validation and perhaps test; at least one event
        each. Where the groups leave too little beside the largest one, held-out parts share what is left.

    Raises:
        DatasetError: If there are fewer events or groups than parts.
    """
    members, sizes = _group_sizes(num_events, groups)
    if len(sizes) < num_held_out + 1:
        what = "event" if groups is None else "group"
        by_event = (
            ""
            if groups is None
            else ", split event by event (gerbil-tune data split --group-by none)"
        )
        raise DatasetError(
            f"{source}: has {counted(len(sizes), what)}, but a split needs at least {num_held_out + 1}; "
            f"add data{by_event}, or give a folder with train_set.h5 and val_set.h5"
        )
    fractions = [fraction, fraction if test_fraction is None else test_fraction][:num_held_out]
    numbers = np.zeros(num_events, dtype=np.int64) if cells is None else cells.numbers
    pool = _Pool(members, sizes, numbers, np.random.default_rng(seed % 2**64))
    part_of_group = np.zeros(len(sizes), dtype=np.int64)
    for part, wanted in enumerate(part_sizes(sizes, fractions), start=1):
        free = np.flatnonzero(part_of_group == 0)
        # One group is left for each part to come, training too.
        part_of_group[pool.choose(free, wanted, num_held_out + 1 - part)] = part
    parts = part_of_group[members]
    return [np.flatnonzero(parts == part) for part in range(num_held_out + 1)]


def part_sizes(sizes: Indices, fractions: list[float]) -> list[int]:
    """Events wanted in each held-out part; the largest group is left to training.

    Args:
        sizes: int64 (G,), events of each group.
        fractions: Of all events, for each held-out part.
    """
    wanted = [max(1, round(fraction * int(sizes.sum()))) for fraction in fractions]
    most = int(sizes.sum() - sizes.max())
    if sum(wanted) > most:
        return [max(1, most * size // sum(wanted)) for size in wanted]
    return wanted


def _group_sizes(num_events: int, groups: Indices | None) -> tuple[Indices, Indices]:
    """The group of each event, numbered from 0, and the events of each group."""
    if groups is None:
        return np.arange(num_events), np.ones(num_events, dtype=np.int64)
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return members.reshape(-1), sizes


class _Pool:
    """Groups to choose from."""

    def __init__(
        self, members: Indices, sizes: Indices, cells: Indices, generator: np.random.Generator
    ) -> None:
        self.sizes = sizes
        self._generator = generator
        self._num_cells = int(cells.max()) + 1
        self._share_M = np.bincount(cells, minlength=self._num_cells) / len(cells)
        self._single = bool(sizes.max() == 1)
        if self._single:
            self._cell_of = np.empty(len(sizes), dtype=np.int64)
            self._cell_of[members] = cells
        else:
            counts = np.bincount(
                members * self._num_cells + cells, minlength=len(sizes) * self._num_cells
            )
            # What a group adds to the difference between a part and the share of all events.
            self._excess_GM: FloatArray = (
                counts.reshape(len(sizes), -1) - sizes[:, None] * self._share_M
            )

    def choose(self, free: Indices, wanted: int, num_left: int) -> Indices:
        """Choose of the free groups a part of ``wanted`` events, leaving at least ``num_left`` groups."""
        if self._single:
            return self._fill_quotas(self._generator.permutation(free), wanted)
        best, least = free[:0], np.inf
        starts = _STARTS if self._num_cells > 1 and len(free) <= _EXACT_GROUPS else 1
        for _ in range(starts):
            shuffled = self._generator.permutation(free)
            chosen = _choose_by_size(shuffled, self.sizes, wanted, num_left)
            if self._num_cells > 1:
                chosen = self._mend(chosen, np.setdiff1d(free, chosen), wanted)
            square = float((self._excess_GM[chosen].sum(axis=0) ** 2).sum())
            if square < least:
                best, least = chosen, square
        return best

    def _fill_quotas(self, free: Indices, wanted: int) -> Indices:
        """Take from each cell its share of the part: the method of largest remainders."""
        cells = self._cell_of[free]
        available = np.bincount(cells, minlength=self._num_cells)
        quota = np.minimum(np.floor(wanted * self._share_M).astype(np.int64), available)
        lottery = self._generator.random(self._num_cells)  # between equal remainders
        while (missing := wanted - int(quota.sum())) > 0:
            order = np.lexsort((lottery, quota - wanted * self._share_M))
            quota[order[quota[order] < available[order]][:missing]] += 1
        by_cell = np.argsort(cells, kind="stable")
        firsts = np.concatenate([[0], np.cumsum(available)[:-1]])
        place_in_cell = np.arange(len(free)) - firsts[cells[by_cell]]
        chosen: Indices = free[by_cell[place_in_cell < quota[cells[by_cell]]]]
        return chosen

    def _mend(self, inside: Indices, outside: Indices, wanted: int) -> Indices:
        """Exchange groups one for one while that brings the part's cells closer to those of all events."""
        inside, outside = inside.copy(), outside.copy()
        num_events = int(self.sizes[inside].sum())
        slack = max(abs(num_events - wanted), int(_SIZE_TOLERANCE * wanted))
        difference_M = self._excess_GM[inside].sum(axis=0)
        all_are_tried = len(inside) <= _INSIDE_TRIED and len(outside) <= _OUTSIDE_TRIED
        stalled = 0
        for _ in range(_ROUNDS):
            rows = self._sample(len(inside), _INSIDE_TRIED)
            columns = self._sample(len(outside), _OUTSIDE_TRIED)
            leaving, coming = inside[rows], outside[columns]
            change = self._change_of_square(difference_M, leaving, coming)
            sizes = num_events - self.sizes[leaving][:, None] + self.sizes[coming]
            change[np.abs(sizes - wanted) > slack] = np.inf
            i, j = np.unravel_index(np.argmin(change), change.shape)
            if change[i, j] > -1e-6:
                stalled += 1
                if all_are_tried or stalled == _STALLED_ROUNDS:
                    break
                continue
            stalled = 0
            num_events = int(sizes[i, j])
            difference_M = difference_M + self._excess_GM[coming[j]] - self._excess_GM[leaving[i]]
            inside[rows[i]], outside[columns[j]] = coming[j], leaving[i]
        return inside

    def _sample(self, number: int, most: int) -> Indices:
        if number <= most:
            return np.arange(number)
        return self._generator.choice(number, most, replace=False, shuffle=False)

    def _change_of_square(
        self, difference_M: FloatArray, leaving: Indices, coming: Indices
    ) -> FloatArray:
        """Change of |difference|² for each exchange, float64 (leaving, coming)."""
        out, new = self._excess_GM[leaving], self._excess_GM[coming]
        of_out = (out**2).sum(axis=1) - 2 * out @ difference_M
        of_new = (new**2).sum(axis=1) + 2 * new @ difference_M
        change: FloatArray = of_out[:, None] + of_new - 2 * out @ new.T
        return change


def _choose_by_size(free: Indices, sizes: Indices, wanted: int, num_left: int) -> Indices:
    """Choose groups whose events together come closest to ``wanted``.

    Up to 512 groups the closest sum there is, by dynamic programming over the sums that can be reached;
    of more groups most are taken as they come, and the rest is made up exactly of 512 others.
    """
    kept = np.empty(0, dtype=np.int64)
    if len(free) > _EXACT_GROUPS:
        taken, room = np.zeros(len(free), dtype=bool), wanted
        for place, size in enumerate(sizes[free].tolist()):
            if size <= room:
                taken[place] = True
                room -= size
        first_fit = free[taken]
        kept = first_fit[: max(len(first_fit) - _RECONSIDERED, 0)]
        open_again = np.concatenate([first_fit[len(kept) :], free[~taken]])
        free = open_again[:_EXACT_GROUPS]
    found = _closest_sum(sizes[free].tolist(), wanted - int(sizes[kept].sum()), bool(len(kept)))
    chosen = np.concatenate([kept, free[found]])
    if len(kept) == 0 and len(free) - len(chosen) < num_left:
        largest_first = chosen[np.argsort(-sizes[chosen], kind="stable")]
        chosen = largest_first[: len(free) - num_left]
    return chosen


def _closest_sum(sizes: list[int], wanted: int, may_be_empty: bool) -> Indices:
    """Places of the numbers whose sum is closest to ``wanted``; the smaller sum of two as close."""
    # Bit s of a reached integer says whether a sum of s can be made of the numbers so far.
    mask = (1 << (2 * wanted + 1)) - 1
    reached = [1]
    for size in sizes:
        reached.append((reached[-1] | (reached[-1] << size)) & mask)
    below = reached[-1] & ((1 << (wanted + 1)) - 1)
    above = reached[-1] >> wanted
    total = below.bit_length() - 1  # 0 where only the empty sum is below
    if above and (total > 0 or may_be_empty):
        next_above = wanted + (above & -above).bit_length() - 1
        total = next_above if next_above - wanted < wanted - total else total
    elif above:
        total = wanted + (above & -above).bit_length() - 1
    if total == 0 and not may_be_empty:
        return np.array([int(np.argmin(sizes))], dtype=np.int64)
    found = []
    for place in range(len(sizes) - 1, -1, -1):
        if not (reached[place] >> total) & 1:
            found.append(place)
            total -= sizes[place]
    return np.array(found[::-1], dtype=np.int64)
