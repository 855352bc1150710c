"""Trials under Ray Tune in this process: repeatable, and with two workers each."""

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.config.study import PopulationConfig
from gerbil_tune.data.events import recording_setup
from gerbil_tune.data.splits.splits import load_splits
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.driver import run_trials
from gerbil_tune.search.placement import machine_resources, plan_placement
from gerbil_tune.search.stop_request import StopRequest
from gerbil_tune.search.storage import storage_url
from gerbil_tune.search.tasks import Ending, TrialTask
from gerbil_tune.search.trial import TrialSite

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    # Ray's own, from its processes' clean-up and its use of older interfaces.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]

LEARNING_RATES = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}


def make_space(
    *, epochs: int = 3, grace_epochs: int = 1, top_learning_rate: float = 1e-2
) -> SpaceFile:
    return SpaceFile.model_validate(
        {
            "name": "s",
            "study": {
                "sampler": {"kind": "tpe", "seed": 1, "startup_trials": 2},
                "trial_scheduler": {
                    "kind": "asha",
                    "grace_epochs": grace_epochs,
                    "reduction_factor": 2,
                },
            },
            "base": {
                "model": {"kind": "gcc-net", "lags": {"num_channels": 8, "hidden": 16}},
                "training": {"epochs": epochs, "global_batch_size": 8},
            },
            "parameters": {
                "optimizer/learning_rate": {**LEARNING_RATES, "high": top_learning_rate}
            },
        }
    )


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> object:
    from gerbil_tune.training.ray_runtime import start_ray

    start_ray(num_cpus=2)
    import ray

    yield
    ray.shutdown()


@pytest.fixture
def make_site(make_event_file: Callable[..., Path], tmp_path: Path) -> Callable[..., TrialSite]:
    def make(folder: Path, workers: int = 1) -> TrialSite:
        path = tmp_path / "events.h5"
        if not path.exists():
            make_event_file("events.h5", num_events=48, lengths=(800, 2000))
        data_config = DataConfig(arena_mm=(572.0, 356.0), sample_rate_hz=125000.0)
        splits = load_splits(path, data_config)
        setup = recording_setup(splits.train, data_config)
        stop_file = folder / "stop"
        return TrialSite(
            setup, splits, folder / "trials", "val_error_median_mm", stop_file, workers
        )

    return make


def search(folder: Path, site: TrialSite, space: SpaceFile, trials: int) -> StudyBook:
    folder.mkdir(exist_ok=True)
    study = space.study.model_copy(update={"trials": trials})
    book = StudyBook(storage_url(folder), "s", space.model_copy(update={"study": study}))
    placement = plan_placement(
        machine_resources(),
        study.placement,
        workers_per_trial=site.workers_per_trial,
        max_concurrent=1,
    )
    stop = StopRequest(folder)
    run_trials(book, site, placement, stop, tune_dir=folder / "tune")
    assert stop.cause == ""
    assert book.num_closed() == trials
    return book


def test_one_trial_at_a_time_gives_the_same_study_twice(
    tmp_path: Path, make_site: Callable[..., TrialSite]
) -> None:
    studies = []
    for name in ("a", "b"):
        book = search(tmp_path / name, make_site(tmp_path / name), make_space(), trials=6)
        studies.append(
            [
                (t.number, t.params, t.state, t.value, t.intermediate_values)
                for t in book.study.trials
            ]
        )
    assert studies[0] == studies[1]
    states = {state for _, _, state, _, _ in studies[0]}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}


def note_a_perfect_trial(folder: Path, space: SpaceFile) -> None:
    """Let a study hold a trial without an error in any epoch, which no later one can be as good as."""
    folder.mkdir()
    book = StudyBook(storage_url(folder), "s", space)
    task = book.next_task()
    assert isinstance(task, TrialTask)
    epochs = space.base["training"]["epochs"]
    for epoch in range(1, epochs + 1):
        last = {"epoch": float(epoch), "val_error_median_mm": 0.0}
        last["training_done"] = float(epoch == epochs)
        assert not book.report(task.number, last)
    book.finish(task.number, Ending("done", last={**last, "best_value": 0.0}))


def test_two_workers_a_trial_with_an_early_stop(
    tmp_path: Path, make_site: Callable[..., TrialSite]
) -> None:
    """After the early stop another trial begins: what it held is free. A whole one: test_sockets."""
    folder, space = tmp_path / "n", make_space(epochs=100)
    note_a_perfect_trial(folder, space)
    book = search(folder, make_site(folder, workers=2), space, trials=3)
    _, first, second = book.study.trials
    for trial in (first, second):
        assert trial.state is TrialState.PRUNED
        assert trial.user_attrs["reason_kind"] == "early stop"
        assert 1 in trial.intermediate_values
        assert 100 not in trial.intermediate_values


def test_a_diverged_trial_fails_with_its_reason_and_the_study_goes_on(
    tmp_path: Path, make_site: Callable[..., TrialSite]
) -> None:
    space = make_space(top_learning_rate=1e30)
    book = search(tmp_path / "d", make_site(tmp_path / "d"), space, trials=4)
    failed = [trial for trial in book.study.trials if trial.state is TrialState.FAIL]
    assert failed
    assert {trial.user_attrs["reason_kind"] for trial in failed} == {"diverged"}
    assert len(book.study.trials) == 4


def test_a_population_goes_on_from_copied_checkpoints(
    tmp_path: Path, make_site: Callable[..., TrialSite]
) -> None:
    space = make_space(epochs=6)
    scheduler = PopulationConfig(kind="pbt", interval_epochs=2, quantile=0.5)
    study = space.study.model_copy(update={"trial_scheduler": scheduler})
    space = space.model_copy(update={"study": study})
    book = search(tmp_path / "p", make_site(tmp_path / "p"), space, trials=2)
    first, second, copy = book.study.trials
    loser, winner = sorted((first, second), key=lambda t: -t.intermediate_values[2])
    assert loser.state is TrialState.PRUNED
    assert loser.user_attrs["reason_kind"] == "replaced"
    assert winner.state is TrialState.COMPLETE
    assert copy.user_attrs["parent"] == winner.number
    assert copy.state is TrialState.COMPLETE
    # Its own epochs alone: 3 to 6, or 5 and 6 where the winner was further already.
    assert sorted(copy.intermediate_values) in ([3, 4, 5, 6], [5, 6])
    assert copy.value == min(copy.intermediate_values.values())
    assert copy.params != winner.params
