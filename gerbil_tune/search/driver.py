"""Run a study with Ray Tune until its budget is spent or someone stops it."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gerbil_tune.errors import LaunchError
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.trial import CONTROLLER_CPUS, TrialSite, run_trial, run_trial_with_workers

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Placement:
    """What each trial gets and how many run at a time."""

    max_concurrent: int
    workers_per_trial: int
    use_gpu: bool


def plan_placement(*, workers_per_trial: int, max_concurrent: int | None) -> Placement:
    """Fit trials into the cluster that Ray is connected to.

    Args:
        workers_per_trial: DDP ranks of each trial; each takes one CPU, and one GPU where there are any.
        max_concurrent: Trials at a time; None: as many as fit.

    Raises:
        LaunchError: If what is asked can never fit; Tune would wait for it for ever.
    """
    import ray

    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    use_gpu = gpus >= 1
    fits = math.floor(cpus / workers_per_trial)
    scarce, amount = "CPU", cpus
    if use_gpu and math.floor(gpus / workers_per_trial) < fits:
        fits = math.floor(gpus / workers_per_trial)
        scarce, amount = "GPU", gpus
    if fits < 1:
        raise LaunchError(
            f"a trial of {workers_per_trial} workers needs {workers_per_trial} {scarce}, but the cluster "
            f"has {amount:g}; lower --workers-per-trial"
        )
    if max_concurrent is not None and max_concurrent > fits:
        raise LaunchError(
            f"--max-concurrent {max_concurrent} trials of {workers_per_trial} workers need "
            f"{max_concurrent * workers_per_trial} {scarce}, but the cluster has {amount:g}, enough for "
            f"{fits}; lower it, or leave it out"
        )
    return Placement(max_concurrent or fits, workers_per_trial, use_gpu)


def run_trials(
    book: StudyBook,
    site: TrialSite,
    placement: Placement,
    *,
    total_trials: int,
    time_budget_s: float | None,
    tune_dir: Path,
    redraw: Callable[[], None] = lambda: None,
) -> bool:
    """Run trials until the study holds ``total_trials``; return whether it got there.

    False means that it was interrupted or the time is up; the same call goes on later.
    """
    from ray import tune

    from gerbil_tune.search.tune_adapters import BookScheduler, BookSearcher, Heartbeat

    missing = total_trials - book.num_closed()
    if missing <= 0:
        return True
    function = run_trial if placement.workers_per_trial == 1 else run_trial_with_workers
    resources = (
        {"CPU": 1, **({"GPU": 1} if placement.use_gpu else {})}
        if placement.workers_per_trial == 1
        else {"CPU": CONTROLLER_CPUS}
    )
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(function, site=site), resources),
        tune_config=tune.TuneConfig(
            search_alg=BookSearcher(book),
            scheduler=BookScheduler(book),
            num_samples=missing,
            max_concurrent_trials=placement.max_concurrent,
            time_budget_s=time_budget_s,
            reuse_actors=placement.workers_per_trial == 1,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"run-{book.num_closed():05d}",
            storage_path=str(tune_dir),
            failure_config=tune.FailureConfig(max_failures=2),
            callbacks=[Heartbeat(redraw)],
            verbose=0,
        ),
    )
    with terminated_like_interrupted():
        tuner.fit()
    return book.num_closed() >= total_trials


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end a search as Ctrl-C does: trials stop at an epoch's end and can go on later.

    Tune leaves its own handlers behind, which would swallow a later Ctrl-C; the old ones are put back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
