"""Run a study with Ray Tune until its budget is spent or someone stops it."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import StorageInternalError

from gerbil_tune.errors import LaunchError
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.placement import Placement
from gerbil_tune.search.stop_request import StopRequest
from gerbil_tune.search.trial import CONTROLLER_CPUS, TrialSite, run_trial, run_trial_with_workers
from gerbil_tune.training.ray_thread import run_until_lost
from gerbil_tune.urls import without_password


def run_trials(
    book: StudyBook,
    site: TrialSite,
    placement: Placement,
    stop: StopRequest,
    *,
    tune_dir: Path,
    redraw: Callable[[], None] = lambda: None,
    function: Callable[..., None] | None = None,
) -> None:
    """Run trials until the study's budget is spent, or it is asked to stop; ``stop.cause`` tells which.

    Called again, it goes on.

    Args:
        book: The study.
        site: What its trials share.
        placement: What each gets.
        stop: Asks to stop, and is asked when a budget is spent.
        tune_dir: For files of Ray Tune's own, which nobody needs afterwards.
        redraw: Called several times a second.
        function: Runs a trial; default: trains it.

    Raises:
        LaunchError: If the study's storage could not be written, or Ray itself has ended.
    """
    from ray import tune

    from gerbil_tune.search.tune_adapters import (
        BookKeeping,
        BookScheduler,
        BookSearcher,
        Heartbeat,
        OverdueStopper,
    )

    keeping = BookKeeping(book, stop)
    searcher = BookSearcher(keeping)
    one_worker = placement.workers_per_trial == 1
    train = run_trial if one_worker else run_trial_with_workers
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(function or train, site=site), _resources(placement)
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=BookScheduler(keeping, searcher),
            num_samples=-1,  # the searcher says when there are no more
            max_concurrent_trials=placement.max_concurrent,
            reuse_actors=one_worker,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(tune_dir),
            stop=OverdueStopper(stop),
            # Which trials go on after a failure is the book's decision.
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[Heartbeat(keeping, redraw)],
            verbose=0,
        ),
    )
    shutil.rmtree(tune_dir, ignore_errors=True)
    # It prints a traceback for each process that dies; the book says in a sentence what becomes of the trial.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        lost = run_until_lost(tuner.fit, keeping.notice_loss)
    finally:
        shutil.rmtree(tune_dir, ignore_errors=True)
    if lost and stop.cause == "signal":
        return  # it was sent to Ray too
    if keeping.error is not None:
        with told_of_storage(OSError):
            raise keeping.error


@contextmanager
def told_of_storage(*more: type[Exception]) -> Iterator[None]:
    """Turn the error of a study's storage that fails into a sentence.

    Args:
        *more: What else means that it fails, where nothing but the storage is used.

    Raises:
        LaunchError: With the storage's own words.
    """
    try:
        yield
    except (StorageInternalError, *more) as error:
        said = " ".join(without_password(str(error.__cause__ or error)).split())[:300]
        raise LaunchError(
            f"the study's storage could not be written ({said}); once it can, the same command goes on"
        ) from error


def _resources(placement: Placement) -> dict[str, float]:
    if placement.workers_per_trial > 1:
        return {"CPU": CONTROLLER_CPUS}
    gpu = {"GPU": placement.gpus_per_worker} if placement.use_gpu else {}
    return {"CPU": placement.cpus_per_worker, **gpu}
