"""Whether a model may take the place of another: what the paired bootstrap of the same events says.

A model is worse where one of its figures is worse beyond chance: the median or the mean error, or how far its
95 % regions fall short of what they state. A difference that chance explains is none.
"""

from dataclasses import dataclass

from gerbil_tune.evaluation.paired import PairedComparison

_COUNTED = {
    "error_median_mm": "median error",
    "error_mean_mm": "mean error",
    "shortfall_95": "coverage",
}
"""Figures that decide, and what a sentence calls them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A candidate against the model whose place it would take.

    Attributes:
        worse: What it is worse at, beyond chance.
        better: What it is better at, beyond chance.
    """

    worse: tuple[str, ...]
    better: tuple[str, ...]

    def sentence(self, candidate: str, champion: str) -> str:
        """Say it in one sentence, with the names of the two models."""
        parts = [f"worse in {_listed(self.worse)}"] if self.worse else []
        parts += [f"better in {_listed(self.better)}"] if self.better else []
        found = " and ".join(parts)
        if not found:
            return f"{candidate} and {champion} differ by no more than chance"
        return f"beyond chance, {candidate} is {found} than {champion}"


def judge(comparison: PairedComparison) -> Verdict:
    """Read a comparison of the candidate (a) with the champion (b)."""
    counted = {
        title: comparison.differences[name]
        for name, title in _COUNTED.items()
        if name in comparison.differences
    }
    return Verdict(
        worse=tuple(title for title, difference in counted.items() if difference.low > 0),
        better=tuple(title for title, difference in counted.items() if difference.high < 0),
    )


def _listed(names: tuple[str, ...]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
