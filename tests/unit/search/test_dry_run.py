"""What ``--dry-run`` prints, on a real file of events."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.config.study import AshaConfig, MedianConfig, NoTrialSchedulerConfig
from gerbil_tune.data.cores import num_cores
from gerbil_tune.data.events import recording_setup
from gerbil_tune.data.splits.splits import load_splits
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.dry_run import dry_run, estimate, expected_epochs, print_dry_run


def make_space(**study):
    return SpaceFile.model_validate(
        {
            "name": "s",
            "study": {"trials": 8, "trial_scheduler": {"kind": "none"}, **study},
            "base": {"training": {"epochs": 5}, "data": {"crop_length": 600}},
            "parameters": {
                "optimizer/learning_rate": {
                    "type": "float",
                    "low": 1e-4,
                    "high": 1e-2,
                    "log": True,
                },
                "model/kind": {
                    "type": "branch",
                    "branches": {
                        "gcc-net": {"model/lags/hidden": {"type": "int", "low": 8, "high": 64}},
                        "densenet": {"model/growth": {"type": "int", "low": 4, "high": 8}},
                    },
                },
            },
        }
    )


@pytest.fixture
def opened(make_event_file, tmp_path):
    splits = load_splits(make_event_file(num_events=40), DataConfig(), tmp_path)
    return SimpleNamespace(splits=splits, setup=recording_setup(splits.train, DataConfig()))


def test_every_sample_is_valid_and_has_its_cost(opened):
    found = dry_run(make_space(), opened.setup, num_samples=16)
    assert len(found.samples) == len(found.feasible) == 16
    kinds = [sample.config.model.kind for sample in found.samples]
    assert kinds.count("gcc-net") == kinds.count("densenet") == 8
    assert all(sample.cost.parameters > 0 for sample in found.samples)


def test_what_exceeds_the_limits_is_told_apart(opened):
    everything = dry_run(make_space(), opened.setup, num_samples=16)
    limit = max(s.cost.parameters for s in everything.samples) - 1
    found = dry_run(make_space(constraints={"max_parameters": limit}), opened.setup, 16)
    assert 0 < len(found.feasible) < 16
    beyond = [sample for sample in found.samples if sample.why_not]
    assert all(sample.cost.parameters > limit for sample in beyond)


def test_the_workers_of_a_trial_share_its_memory(opened):
    alone = dry_run(make_space(), opened.setup, num_samples=8)
    limit_gb = min(sample.cost.training_bytes for sample in alone.samples) / 1e9 - 1e-6
    space = make_space(constraints={"max_memory_gb": limit_gb})
    assert dry_run(space, opened.setup, num_samples=8).feasible == ()
    shared = dry_run(space, opened.setup, num_samples=8, workers_per_trial=8)
    assert shared.feasible
    pairs = zip(shared.samples, alone.samples, strict=True)
    assert all(
        one.cost.training_bytes < 0.5 * all_of_it.cost.training_bytes for one, all_of_it in pairs
    )


def test_a_configuration_that_no_experiment_accepts_is_refused(opened):
    space = make_space()
    wrong = space.model_copy(update={"base": {"training": {"epoch": 1}}})
    with pytest.raises(ConfigError, match="sample 0 of the space: training/epoch is not a known"):
        dry_run(wrong, opened.setup)


@pytest.mark.parametrize(
    ("config", "epochs", "expected"),
    [
        (AshaConfig(grace_epochs=3, reduction_factor=3), 27, 3 + 6 / 3 + 18 / 9),
        (AshaConfig(grace_epochs=3, reduction_factor=3), 15, 3 + 6 / 3 + 6 / 9),
        (AshaConfig(grace_epochs=3), 2, 2),
        (AshaConfig(kind="promotion-asha", grace_epochs=1, reduction_factor=2), 4, 1 + 1 / 2 + 2 / 4),
        (MedianConfig(kind="median", grace_epochs=4), 10, 7),
        (MedianConfig(kind="median", grace_epochs=4), 3, 3),
        (NoTrialSchedulerConfig(kind="none"), 9, 9),
    ],
)  # fmt: skip
def test_epochs_that_a_trial_runs_on_average(config, epochs, expected):
    assert expected_epochs(config, epochs) == pytest.approx(expected)


def test_the_time_follows_trials_epochs_and_budgets(opened):
    space = make_space(refit_epochs=10, refit_top=2)
    found = dry_run(space, opened.setup, num_samples=4)
    expected = estimate(space, found, opened)
    assert (expected.trials, expected.epochs_per_trial) == (8, 5)
    assert expected.total_s == pytest.approx(8 * 5 * expected.epoch_s)
    assert expected.refit_s == pytest.approx(2 * 10 * expected.epoch_s)
    assert set(expected.event_ms) == {"gcc-net", "densenet"}
    assert min(expected.event_ms.values()) > 0
    half = estimate(make_space(epoch_budget=20), found, opened)
    assert half.epochs_per_trial == pytest.approx(2.5)
    grid = make_space(sampler={"kind": "grid", "grid_points": 2}, trials=100)
    assert estimate(grid, found, opened).trials == 2 * (2 + 2)
    known = grid.model_copy(update={"points": ({"optimizer/learning_rate": 1e-3},)})
    assert estimate(known, found, opened).trials == 1 + 2 * (2 + 2)


def test_nothing_within_the_limits_is_told(opened):
    space = make_space(constraints={"max_parameters": 1})
    found = dry_run(space, opened.setup, num_samples=4)
    with pytest.raises(ConfigError, match="none of 4 samples keeps study/constraints"):
        estimate(space, found, opened)


@pytest.mark.parametrize("width", [80, 120])
def test_the_page(opened, width):
    page = io.StringIO()
    space = make_space(time_budget_s=1e-3, constraints={"max_parameters": 10_000_000})
    print_dry_run(space, opened, 2, Console(file=page, width=width))
    text = " ".join(page.getvalue().split())
    assert "s: 4 parameters" in text
    assert "optimizer/learning_rate: 0.0001 to 0.01, logarithmic" in text
    assert "└── model/growth: whole numbers from 4 to 8" in text
    assert "200 configurations sampled, all valid; 0% of them beyond study/constraints" in text
    assert "8 trials of 5.0 epochs on average (none)" in text
    assert "2 at a time" in text
    assert "the time budget of 0.0 s ends it" in text
    assert max(map(len, page.getvalue().splitlines())) <= width


def printed(space, opened, max_concurrent=None, **options):
    page = io.StringIO()
    print_dry_run(space, opened, max_concurrent, Console(file=page, width=400), **options)
    return page.getvalue()


def test_it_reckons_with_what_runs_at_a_time(opened):
    cores = num_cores()
    on_cpus = {"gpus_per_worker": 0.0}
    each_a_core = make_space(placement=on_cpus)
    assert f"with {cores} at a time, if" in printed(each_a_core, opened)
    assert "with 5 at a time, if" in printed(each_a_core, opened, max_concurrent=5)
    text = printed(each_a_core, opened, workers_per_trial=cores)
    assert f"with 1 at a time of {cores} workers" in text or cores == 1
    whole = make_space(placement={"cpus_per_worker": float(cores), **on_cpus})
    assert "with 1 at a time, if" in printed(whole, opened)


def test_what_this_machine_cannot_hold_is_reckoned_one_by_one(opened):
    cores = num_cores()
    space = make_space(placement={"cpus_per_worker": cores + 1.0, "gpus_per_worker": 0.0})
    text = printed(space, opened)
    assert f"on this machine it would not start: a worker needs {cores + 1} CPU" in text
    assert "with 1 at a time" in text
