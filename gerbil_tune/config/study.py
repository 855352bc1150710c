"""The study section of a search-space file: its goal, its budget and its methods."""

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt, model_validator

from gerbil_tune.config.section import (
    ConfigModel,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
)

Metric = Literal["val_error_median_mm", "val_error_mean_mm", "val_error_p90_mm", "val_nll"]
FurtherObjective = Literal[
    "val_error_median_mm",
    "val_error_mean_mm",
    "val_error_p90_mm",
    "val_nll",
    "val_calibration_error",
    "predict_ms_per_event",
]


class SamplerConfig(ConfigModel):
    """Who proposes the next configuration."""

    kind: Literal["tpe", "gp", "cmaes", "random", "grid", "quasi-random"] = "tpe"
    seed: Seed = 0
    startup_trials: PositiveInt = Field(
        8, description="Trials before the sampler models anything (tpe, gp, cmaes)."
    )
    startup: Literal["quasi-random", "random"] = Field(
        "quasi-random", description="How those are drawn: a Sobol sequence, or independently."
    )
    grid_points: Annotated[StrictInt, Field(ge=2)] = Field(
        3, description="grid: values of each range, its ends included."
    )


class AshaConfig(ConfigModel):
    """Successive halving, asynchronous (Li et al. 2020, arXiv:1810.05934).

    asha stops a trial that is not among the best at a rung. promotion-asha pauses every trial there, and goes
    on with the best from their checkpoints once enough others have got as far.
    """

    kind: Literal["asha", "promotion-asha"] = "asha"
    grace_epochs: PositiveInt = Field(3, description="Epochs of the first rung.")
    reduction_factor: Annotated[StrictInt, Field(ge=2)] = Field(
        3, description="The best 1/n of a rung go on; each rung has n times the epochs."
    )


class MedianConfig(ConfigModel):
    """Stops a trial that is worse than the median of the others at the same epoch."""

    kind: Literal["median"]
    grace_epochs: PositiveInt = Field(3, description="No trial is stopped before this many epochs.")
    startup_trials: PositiveInt = Field(4, description="No trial is stopped before these are done.")


class PopulationConfig(ConfigModel):
    """Population based training (Jaderberg et al. 2017, arXiv:1711.09846).

    Every few epochs the worst members of the population go on from a copy of one of the best, with changed
    optimizer, schedule and augmentation. ``trials`` is the population's size.
    """

    kind: Literal["pbt"]
    interval_epochs: PositiveInt = Field(4, description="Epochs between comparisons.")
    quantile: Annotated[StrictFloat, Field(gt=0.0, le=0.5)] = Field(
        0.25, description="Part of the population that is replaced, and part that is copied."
    )
    factor: Annotated[StrictFloat, Field(gt=1.0)] = Field(
        1.2, description="A number is multiplied or divided by this (an index moves by one)."
    )
    resample_probability: Probability = Field(
        0.25, description="Probability of drawing a parameter anew instead."
    )


class NoTrialSchedulerConfig(ConfigModel):
    """Every trial runs to its last epoch."""

    kind: Literal["none"]


TrialSchedulerConfig = Annotated[
    AshaConfig | MedianConfig | PopulationConfig | NoTrialSchedulerConfig,
    Field(discriminator="kind"),
]


class ConstraintsConfig(ConfigModel):
    """Limits that a proposal must keep before it is trained; a proposal beyond one is not run."""

    max_parameters: PositiveInt | None = Field(None, description="Trainable parameters.")
    max_gflop_per_event: PositiveFloat | None = Field(
        None, description="Of one forward pass on an event of crop length, 1e9 operations."
    )
    max_memory_gb: PositiveFloat | None = Field(
        None, description="Estimated memory of training in one worker, 1e9 bytes."
    )


class PlacementConfig(ConfigModel):
    """What a worker of a trial gets."""

    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat | None = Field(
        None,
        description="May be a fraction; default: what the largest configuration's estimated memory"
        " needs where there are GPUs.",
    )

    @model_validator(mode="after")
    def _gpus_are_whole_above_one(self) -> "PlacementConfig":
        gpus = self.gpus_per_worker
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_worker above 1 must be a whole number, but is {gpus:g}")
        return self


class StudyConfig(ConfigModel):
    """The study's goal, budget and methods."""

    metric: Metric = Field(
        "val_error_median_mm", description="The first objective, which stops trials; lower: better."
    )
    further_objectives: tuple[FurtherObjective, ...] = Field(
        (), description="Minimized too: the study then looks for a Pareto front."
    )
    trials: PositiveInt = 50
    time_budget_s: PositiveFloat | None = Field(
        None, description="Of all runs of the search together."
    )
    epoch_budget: PositiveInt | None = Field(None, description="Epochs of all trials together.")
    patience_trials: PositiveInt | None = Field(
        None, description="Stop when so many finished trials in a row have not improved the best."
    )
    max_failures: PositiveInt = Field(
        20, description="Trials of one run that may fail before the search gives up."
    )
    refit_epochs: PositiveInt | None = Field(
        None, description="Epochs of the champion's final training; default: as searched."
    )
    refit_top: PositiveInt = Field(
        1, description="Trials that are trained whole and compared on the test events."
    )
    sampler: SamplerConfig = SamplerConfig()
    trial_scheduler: TrialSchedulerConfig = AshaConfig()
    constraints: ConstraintsConfig = ConstraintsConfig()
    placement: PlacementConfig = PlacementConfig()
    warm_start: tuple[str, ...] = Field(
        (), description="Folders of earlier studies, or mlflow:EXPERIMENT, whose trials are known."
    )

    @property
    def objectives(self) -> tuple[str, ...]:
        """All that is minimized, the metric first."""
        return (self.metric, *self.further_objectives)

    @model_validator(mode="after")
    def _objectives_go_together(self) -> "StudyConfig":
        names = self.objectives
        if len(set(names)) < len(names):
            raise ValueError(f"each objective may stand once, but there are {', '.join(names)}")
        if self.further_objectives and self.sampler.kind == "cmaes":
            raise ValueError(
                "the sampler cmaes has one objective; with further_objectives use tpe or gp"
            )
        if self.further_objectives and self.trial_scheduler.kind in ("median", "pbt"):
            raise ValueError(
                f"the trial_scheduler {self.trial_scheduler.kind} has one objective; with "
                "further_objectives use asha, promotion-asha or none"
            )
        return self
