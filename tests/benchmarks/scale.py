"""Whether one driver keeps 512 GPUs busy: 64 machines of 8 GPUs, 2,000 trials, in simulated time.

Training is a formula and takes simulated time. What the driver does is real, is timed, and delays the trials
that wait for it: placement, sampler, trial scheduler, the study in SQLite, the record in MLflow. Of Ray Tune,
which cannot run 512 processes here, a fixed time for each result and each start is added
(``search.py`` measures all of it together on real processes).

    python tests/benchmarks/scale.py [--trials 2000] [--epoch-s 60]
"""

import argparse
import heapq
import itertools
import random
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from search import resident_mb
from search_curves import PARAMETERS, curve_mm
from simulated_search import epoch_metrics

from gerbil_tune.config.space import SpaceFile
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.placement import plan_placement
from gerbil_tune.search.recorder import StudyRecorder
from gerbil_tune.search.storage import storage_url
from gerbil_tune.search.tasks import Ending, NoTask, TrialTask
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker

EPOCHS = 27
MACHINES, GPUS_EACH = 64, 8
START_S = 5.0
"""Of a trial on a GPU in a process that is there already: the model is built, the first batch is read."""
TUNE_S = 0.015
"""Ray Tune's own work for each result and each start."""


@dataclass
class Cluster:
    """Simulated GPUs with one real driver, whose work takes simulated time too.

    Attributes:
        book: Of the study.
        slots: Trials at a time.
        epoch_s: Of a median configuration.
        free_at_s: When the driver is done with what it was given, simulated.
        epochs_s: When each epoch began and ended, simulated.
        waits_s: When each trial began to wait for the driver, and until when.
        driver_s: What the driver's work took, real, with Tune's.
    """

    book: StudyBook
    slots: int
    epoch_s: float
    free_at_s: float = 0.0
    epochs_s: list[tuple[float, float]] = field(default_factory=list)
    waits_s: list[tuple[float, float]] = field(default_factory=list)
    driver_s: float = 0.0
    _order: itertools.count = field(default_factory=itertools.count)

    def run(self, trials: int) -> tuple[float, float]:
        """Run a study; return when its last trial began and when it was over."""
        running: list[tuple[float, int, TrialTask, int]] = []
        free, now, last_begin_s = [0.0] * self.slots, 0.0, 0.0
        while True:
            while free:
                begun = self._begin(trials, max(now, free[-1]))
                if begun is None:
                    break
                free.pop()
                task, at_s = begun
                last_begin_s = at_s
                at_s += START_S + self._epoch_s(task)
                heapq.heappush(running, (at_s, next(self._order), task, task.epochs_done + 1))
            if not running:
                return last_begin_s, now
            now, _, task, epoch = heapq.heappop(running)
            self.epochs_s.append((now - self._epoch_s(task), now))
            ends, at_s = self._report(task, epoch, now)
            if ends:
                free.append(at_s)
            else:
                at_s += self._epoch_s(task)
                heapq.heappush(running, (at_s, next(self._order), task, epoch + 1))

    def _begin(self, trials: int, now: float) -> tuple[TrialTask, float] | None:
        begun = time.perf_counter()
        task = self.book.next_task(may_begin=self.book.num_begun() < trials)
        if isinstance(task, NoTask):
            return None
        return task, self._done_at(now, time.perf_counter() - begun)

    def _report(self, task: TrialTask, epoch: int, now: float) -> tuple[bool, float]:
        begun = time.perf_counter()
        value, last = curve_mm(task.config, epoch), task.config.training.epochs
        metrics = epoch_metrics(epoch, value, last)
        metrics |= {f"val_{name}": value for name in ("error_mean_mm", "error_p90_mm", "nll")}
        ends = self.book.report(task.number, metrics) or epoch >= last
        self.book.spent()
        if ends:
            ending = Ending("done" if epoch >= last else "interrupted", "", metrics)
            self.book.finish(task.number, ending)
        return ends, self._done_at(now, time.perf_counter() - begun)

    def _done_at(self, now: float, took_s: float) -> float:
        took_s += TUNE_S
        self.driver_s += took_s
        self.free_at_s = max(now, self.free_at_s) + took_s
        self.waits_s.append((now, self.free_at_s))
        return self.free_at_s

    def _epoch_s(self, task: TrialTask) -> float:
        """Larger networks take longer: from half the time to twice."""
        generator = random.Random(task.number)
        return self.epoch_s * 2 ** generator.uniform(-1.0, 1.0)


def make_space(trials: int) -> SpaceFile:
    """Eight parameters with the default methods."""
    return SpaceFile.model_validate(
        {
            "name": "scale",
            "study": {"trials": trials},
            "base": {"training": {"epochs": EPOCHS}},
            "parameters": PARAMETERS,
        }
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--epoch-s", type=float, default=60.0, help="an epoch of a median network")
    options = parser.parse_args()
    machines = [{"CPU": 64.0, "GPU": float(GPUS_EACH)}] * MACHINES
    space = make_space(options.trials)
    slots = plan_placement(machines, space.study.placement).max_concurrent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorder = StudyRecorder(MlflowTracker(f"sqlite:///{folder}/mlflow.db"), folder)
        book = StudyBook(storage_url(folder), "scale", space, (recorder,))
        recorder.begin(book.study, {}, {})
        before_mb, before_s = resident_mb(), _cpu_s()
        cluster = Cluster(book, slots, options.epoch_s)
        last_begin_s, end_s = cluster.run(options.trials)
        grown_mb, cpu_s = resident_mb() - before_mb, _cpu_s() - before_s
        recorder.end(book.study, "complete")
    _print(cluster, options.trials, last_begin_s, end_s)
    print(f"driver    {cpu_s:.0f} s of CPU, memory grows by {grown_mb:.0f} MB")


def _print(cluster: Cluster, trials: int, last_begin_s: float, end_s: float) -> None:
    print(f"{trials} trials on {cluster.slots} GPUs, an epoch of {cluster.epoch_s:g} s or so")
    for until_s, when in ((last_begin_s, "while trials are left to begin"), (end_s, "to the end")):
        busy = share(cluster.epochs_s, until_s, cluster.slots)
        waits = share(cluster.waits_s, until_s, cluster.slots)
        print(
            f"share     {busy:.3f} of GPU time in epochs {when} ({until_s / 3600:.2f} h); "
            f"{waits:.3f} waits for the driver"
        )
    print(f"driver    busy for {cluster.driver_s / end_s:.3f} of the time")


def share(spans_s: list[tuple[float, float]], until_s: float, slots: int) -> float:
    """The part of the time of all GPUs, up to a moment, that some spans take."""
    taken = sum(max(0.0, min(end, until_s) - begin) for begin, end in spans_s)
    return taken / (slots * until_s)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
