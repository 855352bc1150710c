"""``gerbil-tune search --dry-run``: what a study would try, and what it would cost."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gerbil_tune.config.load import compose
from gerbil_tune.config.parameters import (
    BranchParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    walk,
)
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.config.study import AshaConfig, MedianConfig, TrialSchedulerConfig
from gerbil_tune.data.cores import num_cores
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import ModelCost, model_cost
from gerbil_tune.search.constraints import violations
from gerbil_tune.search.largest import largest_training_bytes
from gerbil_tune.search.placement import Placement, local_gpus, plan_placement
from gerbil_tune.search.policies import rung_epochs
from gerbil_tune.search.quasi_random import quasi_random_point
from gerbil_tune.search.sampler import num_proposals
from gerbil_tune.units import counted, format_duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.tree import Tree

NUM_SAMPLES = 200


class OpenedData(Protocol):
    """Training data that are open already."""

    @property
    def splits(self) -> Splits:
        """The events."""

    @property
    def setup(self) -> RecordingSetup:
        """The recording site."""


@dataclass(frozen=True)
class Sample:
    """A configuration that the search might try.

    Attributes:
        config: The experiment.
        cost: What it takes.
        why_not: What of the study's limits it exceeds; empty where it keeps them.
    """

    config: ExperimentConfig
    cost: ModelCost
    why_not: str


@dataclass(frozen=True)
class DryRun:
    """Configurations spread evenly over a space, all of them valid."""

    samples: tuple[Sample, ...]

    @property
    def feasible(self) -> tuple[Sample, ...]:
        """Those that keep the study's limits."""
        return tuple(sample for sample in self.samples if not sample.why_not)


@dataclass(frozen=True)
class Estimate:
    """What a study is expected to take.

    Attributes:
        trials: How many.
        epochs_per_trial: Of a trial on average, early stopping considered.
        epoch_s: Of an epoch on average.
        event_ms: Measured time of a step by architecture, for an event of a middling configuration.
        total_s: Of all trials, one after the other.
        refit_s: Of the final trainings.
    """

    trials: int
    epochs_per_trial: float
    epoch_s: float
    event_ms: dict[str, float]
    total_s: float
    refit_s: float


def dry_run(
    space: SpaceFile,
    setup: RecordingSetup,
    num_samples: int = NUM_SAMPLES,
    workers_per_trial: int = 1,
) -> DryRun:
    """Draw configurations and find out what each costs, without training any.

    Args:
        space: What is searched.
        setup: The recording site.
        num_samples: How many.
        workers_per_trial: DDP ranks that share a batch and so its memory.

    Raises:
        ConfigError: If one is not valid, naming the value.
    """
    return DryRun(
        tuple(_sample(space, setup, index, workers_per_trial) for index in range(num_samples))
    )


def _sample(space: SpaceFile, setup: RecordingSetup, index: int, num_workers: int) -> Sample:
    values = quasi_random_point(space, index, space.study.sampler.seed)
    config = compose(space.base, values, f"sample {index} of the space")
    _, why_not = violations(config, setup, space.study.constraints, num_workers)
    return Sample(config, model_cost(config, setup, num_workers), why_not)


def estimate(space: SpaceFile, found: DryRun, data: OpenedData) -> Estimate:
    """Measure a step of a middling configuration of each architecture here, and reckon from there.

    Raises:
        ConfigError: If no sample keeps the study's limits.
    """
    from gerbil_tune.search.step_time import measure_step

    if not found.feasible:
        raise ConfigError(
            f"none of {len(found.samples)} samples keeps study/constraints; relax them or change the space"
        )
    times = {
        kind: measure_step(_middling(samples).config, data.setup, data.splits.train)
        for kind, samples in _by_architecture(found.feasible).items()
    }
    study = space.study
    epochs, epoch_s, trial_s = [], [], []
    for sample in found.feasible:
        config = sample.config
        epochs.append(expected_epochs(study.trial_scheduler, config.training.epochs))
        epoch_s.append(times[config.model.kind].epoch_s(config, sample.cost, data.splits))
        trial_s.append(epochs[-1] * epoch_s[-1])
    most = num_proposals(space)
    trials = study.trials if most is None else min(study.trials, len(space.points) + most)
    share = min(1.0, (study.epoch_budget or float("inf")) / (trials * statistics.fmean(epochs)))
    refit_epochs = study.refit_epochs or found.feasible[0].config.training.epochs
    return Estimate(
        trials=trials,
        epochs_per_trial=statistics.fmean(epochs) * share,
        epoch_s=statistics.fmean(epoch_s),
        event_ms={kind: 1000 * (t.network_s + t.features_s) for kind, t in times.items()},
        total_s=trials * statistics.fmean(trial_s) * share,
        refit_s=study.refit_top * refit_epochs * statistics.fmean(epoch_s),
    )


def _by_architecture(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    kinds = sorted({sample.config.model.kind for sample in samples})
    return {kind: [s for s in samples if s.config.model.kind == kind] for kind in kinds}


def _middling(samples: Sequence[Sample]) -> Sample:
    ordered = sorted(samples, key=lambda sample: sample.cost.gflop_per_event)
    return ordered[len(ordered) // 2]


def expected_epochs(config: TrialSchedulerConfig, epochs: int) -> float:
    """Epochs that a trial runs on average: of successive halving, 1/n of each rung's trials go on.

    The median rule is taken to stop half of the trials as soon as it may.
    """
    if isinstance(config, AshaConfig):
        total, share, before = 0.0, 1.0, 0
        for rung in (*rung_epochs(config, epochs), epochs):
            total += share * (rung - before)
            share, before = share / config.reduction_factor, rung
        return total
    if isinstance(config, MedianConfig):
        return (min(config.grace_epochs, epochs) + epochs) / 2
    return float(epochs)


def print_dry_run(
    space: SpaceFile,
    opened: OpenedData,
    max_concurrent: int | None,
    console: "Console",
    *,
    workers_per_trial: int = 1,
) -> None:
    """Print the space, what its configurations take, and what the study is expected to cost.

    Args:
        space: What is searched.
        opened: On what.
        max_concurrent: Trials at a time; None: as many as this machine has room for.
        console: Where to.
        workers_per_trial: DDP ranks of each trial.
    """
    console.print(space_tree(space))
    found = dry_run(space, opened.setup, workers_per_trial=workers_per_trial)
    console.print(_costs(found))
    beyond = 1 - len(found.feasible) / len(found.samples)
    console.print(
        f"{counted(len(found.samples), 'configuration')} sampled, all valid; {beyond:.0%} of them beyond "
        "study/constraints and so not run"
    )
    expected = estimate(space, found, opened)
    try:
        placement = _placement(space, opened.setup, max_concurrent, workers_per_trial)
    except LaunchError as error:
        # The study may well be meant for a cluster, which has what this machine lacks.
        console.print(f"on this machine it would not start: {error}", markup=False)
        placement = Placement(1, workers_per_trial)
    for line in _sentences(space, expected, placement):
        console.print(line)


def _placement(
    space: SpaceFile, setup: RecordingSetup, max_concurrent: int | None, workers: int
) -> Placement:
    """How trials would be placed on this machine, or as asked for another."""
    config = space.study.placement
    if max_concurrent is not None:
        return Placement(max_concurrent, workers, config.cpus_per_worker)
    gpus, gpu_bytes = local_gpus()
    return plan_placement(
        {"CPU": float(num_cores()), "GPU": float(gpus)},
        config,
        workers_per_trial=workers,
        training_bytes=largest_training_bytes(space, setup, workers, space.name) if gpus else 0.0,
        gpu_bytes=gpu_bytes,
    )


def _sentences(space: SpaceFile, expected: Estimate, placement: Placement) -> list[str]:
    measured = ", ".join(f"{kind} {ms:.3g} ms" for kind, ms in expected.event_ms.items())
    workers = placement.workers_per_trial
    search_s = expected.total_s / (placement.max_concurrent * workers)
    each = f" of {workers} workers" if workers > 1 else ""
    lines = [
        f"a training step, measured here on a middling configuration of each: {measured} an event",
        f"{counted(expected.trials, 'trial')} of {expected.epochs_per_trial:.1f} epochs on average "
        f"({space.study.trial_scheduler.kind}), {format_duration(expected.epoch_s)} an epoch with one "
        f"worker: about {format_duration(search_s)} with {placement.max_concurrent} at a time{each}, if they "
        "do not slow each other",
        f"the final training of {counted(space.study.refit_top, 'trial')}: about "
        f"{format_duration(expected.refit_s)} with one worker",
    ]
    limit_s = space.study.time_budget_s
    if limit_s is not None and limit_s < search_s:
        lines.append(
            f"the time budget of {format_duration(limit_s)} ends it after about "
            f"{counted(round(expected.trials * limit_s / search_s), 'trial')}"
        )
    return lines


def space_tree(space: SpaceFile) -> "Tree":
    """The parameters with their ranges, those of a branch below it."""
    from rich.tree import Tree

    number = sum(1 for _ in walk(space.parameters))
    points = num_proposals(space)
    grid = f", a grid of {points:,} points" if points is not None else ""
    known = f", {counted(len(space.points), 'point')} tried first" if space.points else ""
    tree = Tree(f"[bold]{space.name}[/bold]: {counted(number, 'parameter')}{grid}{known}")
    _grow(tree, space.parameters)
    return tree


def _grow(tree: "Tree", parameters: Mapping[str, Parameter]) -> None:
    from rich.markup import escape

    for path, parameter in parameters.items():
        if not isinstance(parameter, BranchParameter):
            tree.add(escape(f"{path}: {_in_words(parameter)}"))
            continue
        branch = tree.add(path)
        for name, nested in parameter.branches.items():
            _grow(branch.add(f"[bold]{escape(name)}[/bold]"), nested)


def _in_words(parameter: Parameter) -> str:
    is_log = isinstance(parameter, FloatParameter | IntParameter) and parameter.log
    return parameter.valid_values() + (", logarithmic" if is_log else "")


def _costs(found: DryRun) -> "RenderableType":
    """Lowest, middle and highest cost of the samples."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("", "lowest", "median", "highest"):
        table.add_column(heading, justify="right" if heading else "left")
    costs = [sample.cost for sample in found.samples]
    rows: dict[str, list[float]] = {
        "parameters": [cost.parameters for cost in costs],
        "GFLOP an event, forward": [cost.gflop_per_event for cost in costs],
        "memory of a worker, GB": [cost.training_bytes / 1e9 for cost in costs],
    }
    for name, values in rows.items():
        shown = (min(values), statistics.median(values), max(values))
        table.add_row(
            name, *(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in shown)
        )
    return table
