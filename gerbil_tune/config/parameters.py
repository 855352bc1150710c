"""What a search space is made of: ranges, choices and branches, by config path."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PlainValidator, StrictBool, StrictFloat, StrictInt, model_validator

from gerbil_tune.config.load import Scalar
from gerbil_tune.config.section import ConfigModel, PositiveInt
from gerbil_tune.errors import ConfigError

_Choice = TypeVar("_Choice")


def check_scalar(value: Any) -> Scalar:
    """Return a single finite value unchanged, else raise ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number must be finite, but is {value}")
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a number, a string, true, false or null, but is {value}")
    return value


AnyScalar = Annotated[Scalar, PlainValidator(check_scalar)]


class FloatParameter(ConfigModel):
    """A real number from low to high, both included."""

    type: Literal["float"]
    low: StrictFloat
    high: StrictFloat
    log: StrictBool = False

    @model_validator(mode="after")
    def _range_ascends(self) -> "FloatParameter":
        check_range(self.low, self.high, self.log)
        return self

    def probes(self) -> tuple[Scalar, ...]:
        """Values that prove the range valid: its ends."""
        return self.low, self.high

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high

    def valid_values(self) -> str:
        """What it can propose, in words."""
        return f"{self.low:g} to {self.high:g}"

    def at(self, share: float) -> float:
        """Value below which that share of random values lies, 0 to 1."""
        if share in (0.0, 1.0):
            return self.high if share else self.low  # without rounding
        low, high = self._ends()
        value = low + share * (high - low)
        return self.nearest(math.exp(value) if self.log else value)

    def share(self, value: float) -> float:
        """The inverse of ``at``."""
        low, high = self._ends()
        return ((math.log(value) if self.log else value) - low) / (high - low)

    def nearest(self, value: float) -> float:
        """The closest value that it can propose."""
        return min(max(value, self.low), self.high)

    def grid(self, num_points: int) -> tuple[Scalar, ...]:
        """Evenly spaced values, both ends included."""
        return tuple(self.at(i / (num_points - 1)) for i in range(num_points))

    def _ends(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)


class IntParameter(ConfigModel):
    """A whole number from low to high, both included."""

    type: Literal["int"]
    low: StrictInt
    high: StrictInt
    log: StrictBool = False
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _range_ascends(self) -> "IntParameter":
        check_range(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError(f"step must be 1 where log is true, but is {self.step}")
        return self

    def probes(self) -> tuple[Scalar, ...]:
        """Values that prove the range valid: its ends, and the second for rules such as being odd."""
        return tuple(sorted({self.low, min(self.low + self.step, self.highest), self.highest}))

    @property
    def highest(self) -> int:
        """The last step at or below ``high``."""
        return self.high - (self.high - self.low) % self.step

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return value in range(self.low, self.high + 1, self.step)

    def valid_values(self) -> str:
        """What it can propose, in words."""
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"whole numbers from {self.low} to {self.high}{steps}"

    def at(self, share: float) -> int:
        """Value below which that share of random values lies, 0 to 1."""
        low, high = self._ends()
        value = low + share * (high - low)
        return self.nearest(math.exp(value) if self.log else value)

    def share(self, value: float) -> float:
        """The middle of those shares for which ``at`` gives this value."""
        low, high = self._ends()
        return ((math.log(value) if self.log else value) - low) / (high - low)

    def nearest(self, value: float) -> int:
        """The closest value that it can propose."""
        steps = round((min(max(value, self.low), self.highest) - self.low) / self.step)
        return self.low + steps * self.step

    def grid(self, num_points: int) -> tuple[Scalar, ...]:
        """Evenly spaced values, both ends included; all values where there are fewer."""
        low, high = float(self.low), float(self.highest)
        shares = [i / (num_points - 1) for i in range(num_points)]
        if self.log:
            return tuple(sorted({self.nearest(low * (high / low) ** s) for s in shares}))
        return tuple(sorted({self.nearest(low + (high - low) * s) for s in shares}))

    def _ends(self) -> tuple[float, float]:
        """Half a step is added at both ends, so that all values have the same room."""
        low, high = self.low - self.step / 2, self.highest + self.step / 2
        return (math.log(low), math.log(high)) if self.log else (low, high)


class CategoricalParameter(ConfigModel):
    """One of several scalars."""

    type: Literal["categorical"]
    choices: tuple[AnyScalar, ...] = Field(min_length=1)

    def probes(self) -> tuple[Scalar, ...]:
        """Values that prove the range valid: all choices."""
        return self.choices

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        return value in self.choices

    def valid_values(self) -> str:
        """What it can propose, in words."""
        return ", ".join(str(choice) for choice in self.choices)

    def at(self, share: float) -> Scalar:
        """The choice at a share of the list, 0 to 1."""
        return pick(self.choices, share)

    def grid(self, num_points: int) -> tuple[Scalar, ...]:
        """All choices."""
        return self.choices


class BranchParameter(ConfigModel):
    """One of several names, each with parameters that exist only under it."""

    type: Literal["branch"]
    branches: dict[str, dict[str, "Parameter"]] = Field(min_length=1)

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        return value in self.branches

    def valid_values(self) -> str:
        """What it can propose, in words."""
        return ", ".join(self.branches)

    def at(self, share: float) -> str:
        """The branch at a share of the list, 0 to 1."""
        return pick(tuple(self.branches), share)


Parameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter | BranchParameter,
    Field(discriminator="type"),
]


def check_range(low: float, high: float, log: bool) -> None:
    """Raise ValueError unless low < high, and low > 0 where log."""
    if low >= high:
        raise ValueError(f"low must be below high, but low is {low} and high is {high}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 where log is true, but is {low}")


def pick(choices: tuple[_Choice, ...], share: float) -> _Choice:
    """Entry of a list at a share of its length, 0 to 1."""
    return choices[min(int(share * len(choices)), len(choices) - 1)]


def without_pinned(
    parameters: Mapping[str, Parameter], pinned: Mapping[str, Any]
) -> dict[str, Parameter]:
    """Parameters that are still searched when some paths have fixed values.

    Of a branch whose choice is fixed, the parameters of that choice remain.
    """
    remaining: dict[str, Parameter] = {}
    for path, parameter in parameters.items():
        if isinstance(parameter, BranchParameter):
            branches = {
                name: without_pinned(nested, pinned) for name, nested in parameter.branches.items()
            }
            if path in pinned:
                remaining |= branches.get(str(pinned[path]), {})
            else:
                remaining[path] = parameter.model_copy(update={"branches": branches})
        elif path not in pinned:
            remaining[path] = parameter
    return remaining


def parameter_paths(parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """Yield the config path of every parameter, those inside branches too."""
    for path, _, _ in walk(parameters):
        yield path


def walk(
    parameters: Mapping[str, Parameter], branches: tuple[str, ...] = ()
) -> Iterator[tuple[str, Parameter, tuple[str, ...]]]:
    """Yield path, parameter and the branches that it lives in, for every parameter there is."""
    for path, parameter in parameters.items():
        yield path, parameter, branches
        if isinstance(parameter, BranchParameter):
            for name, nested in parameter.branches.items():
                yield from walk(nested, (*branches, name))


def in_force(
    parameters: Mapping[str, Parameter],
    values: Mapping[str, Scalar],
    branches: tuple[str, ...] = (),
) -> Iterator[tuple[str, Parameter, tuple[str, ...]]]:
    """Like ``walk``, but of branches follow those alone that the values choose."""
    for path, parameter in parameters.items():
        yield path, parameter, branches
        if isinstance(parameter, BranchParameter):
            branch = str(values.get(path))
            yield from in_force(parameter.branches.get(branch, {}), values, (*branches, branch))


def always_numeric(
    parameters: Mapping[str, Parameter],
) -> dict[str, FloatParameter | IntParameter]:
    """The numbers that are searched whatever branches are chosen."""
    return {
        path: parameter
        for path, parameter in parameters.items()
        if isinstance(parameter, FloatParameter | IntParameter)
    }


def branch_combinations(
    parameters: Mapping[str, Parameter], source: str
) -> Iterator[dict[str, tuple[Scalar, ...]]]:
    """Yield, for each combination of branches, the probes of each parameter in force.

    Raises:
        ConfigError: If two parameters of one combination set the same path.
    """
    plain = {
        path: parameter.probes()
        for path, parameter in parameters.items()
        if not isinstance(parameter, BranchParameter)
    }
    alternatives = [
        [
            (path, branch, inner)
            for branch, nested in parameter.branches.items()
            for inner in branch_combinations(nested, source)
        ]
        for path, parameter in parameters.items()
        if isinstance(parameter, BranchParameter)
    ]
    for combination in itertools.product(*alternatives):
        merged = {**plain, **{path: (branch,) for path, branch, _ in combination}}
        for path, branch, inner in combination:
            twice = sorted(merged.keys() & inner.keys())
            if twice:
                raise ConfigError(
                    f"{source}: {twice[0]} is searched in the branch {branch} of {path} and outside it; "
                    "search it in one place"
                )
            merged.update(inner)
        yield merged


def num_grid_points(parameters: Mapping[str, Parameter], num_values: int) -> int:
    """Combinations of all choices and ``num_values`` of each range; branches add, the rest multiplies."""
    return math.prod(
        sum(num_grid_points(nested, num_values) for nested in parameter.branches.values())
        if isinstance(parameter, BranchParameter)
        else len(parameter.grid(num_values))
        for parameter in parameters.values()
    )
