"""Studies with the attributes that a search leaves, without a search."""

import math
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import yaml
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

HOSTILE = '</script><b>"&'
STARTED = datetime(2026, 3, 1, 20, 0)
SPACE = {"base": {"training": {"epochs": 27}}, "parameters": {}}
RATE, KIND = "optimizer/learning_rate", "model/kind"
HIDDEN, GROWTH = "model/lags/hidden@gcc-net", "model/growth@densenet"
EPOCHS = 27


def careless_storage(url: str) -> optuna.storages.RDBStorage:
    """A SQLite storage that does not wait for the disk."""
    storage = optuna.storages.RDBStorage(url)
    storage.engine.dispose()
    sqlalchemy.event.listen(
        storage.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF")
    )
    return storage


class StudyWriter:
    """Writes trials into a study in a SQLite file, as a search would, but in milliseconds."""

    def __init__(self, folder: Path, objectives: tuple[str, ...], name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        url = f"sqlite:///{(folder / 'optuna.db').as_posix()}"
        self.folder, self.objectives = folder, objectives
        self.study = optuna.create_study(
            storage=careless_storage(url),
            study_name=name,
            directions=["minimize"] * len(objectives),
        )
        (folder / "study.yaml").write_text(yaml.safe_dump({"name": name, "storage": url}))
        self.attribute("metric", objectives[0])
        self.attribute("objectives", list(objectives))
        self.attribute("space", SPACE)
        self.attribute("data_fingerprint", "9f2c1e77ab0de441")
        self.clock = STARTED
        self.random = random.Random(1)
        self.trials: list[FrozenTrial] = []

    def attribute(self, name: str, value: Any) -> None:
        self.study.set_user_attr(name, value)

    def draw(self) -> dict[str, Any]:
        """Parameters of a trial: a branch, a log range, whole numbers."""
        kind = self.random.choice(["gcc-net", "densenet", HOSTILE])
        values = {RATE: 10 ** self.random.uniform(-4, -1.5), KIND: kind}
        if kind == "gcc-net":
            values[HIDDEN] = self.random.randint(32, 256)
        elif kind == "densenet":
            values[GROWTH] = self.random.randint(8, 24)
        return values

    def quality(self, values: dict[str, Any]) -> float:
        """Error in mm after many epochs: gcc-net with a rate of 0.003 is best."""
        floor = {"gcc-net": 18.0, "densenet": 30.0}.get(values[KIND], 55.0)
        return floor + 9 * (math.log10(values[RATE]) + 2.5) ** 2 + values.get(HIDDEN, 0) / 60

    def curve(self, values: dict[str, Any], epochs: int, start: int = 0) -> dict[int, float]:
        goal = self.quality(values)
        return {
            epoch: goal + (140 - goal) * math.exp(-epoch / 5) + self.random.gauss(0, 0.6)
            for epoch in range(start + 1, epochs + 1)
        }

    def add(
        self,
        state: TrialState,
        epochs: int = EPOCHS,
        parameters: dict[str, Any] | None = None,
        start: int = 0,
        **attributes: Any,
    ) -> FrozenTrial:
        """Add a trial that has run for so many epochs; it took 8 s for each."""
        values = self.draw() if parameters is None else parameters
        curve = self.curve(values, epochs, start)
        seconds = 8.0 * len(curve) + 2
        known: dict[str, Any] = {
            "config": {"training/epochs": EPOCHS, **values},
            "seconds": seconds,
            **attributes,
        }
        if curve:
            error = min(curve.values())
            known["best_metrics"] = {
                "epoch": min(curve, key=curve.__getitem__),
                "val_error_median_mm": error,
                "val_nll": 8.0 + error / 50,
                "val_calibration_error": abs(math.sin(error)) / 10 + 1 / error,
                "predict_ms_per_event": 0.2 + 30 / error,
            }
            known["metrics"] = known["best_metrics"] | {"epoch": epochs, "training_done": 1.0}
        several = len(self.objectives) > 1
        if several:
            known["curve"] = curve
        best = known.get("best_metrics", {})
        results = [best[name] for name in self.objectives] if curve else None
        ends = self.clock + timedelta(seconds=seconds)
        trial = FrozenTrial(
            number=0,
            trial_id=0,
            state=state,
            value=None,
            values=results if state == TrialState.COMPLETE else None,
            datetime_start=self.clock,
            datetime_complete=ends if state.is_finished() else None,
            params=values,
            distributions={name: DISTRIBUTIONS[name] for name in values},
            user_attrs=known,
            system_attrs={},
            intermediate_values={} if several else curve,
        )
        self.clock += timedelta(seconds=seconds / 2)  # two at a time
        self.study.add_trial(trial)
        self.trials.append(self.study.get_trials(deepcopy=False)[-1])
        return self.trials[-1]

    def add_searched(self, number: int) -> None:
        """Trials as successive halving leaves them, some of which failed."""
        for place in range(number):
            values = self.draw()
            if place % 13 == 7:
                words = f"the loss became NaN {HOSTILE}; lower optimizer/learning_rate"
                self.add(TrialState.FAIL, 2, values, reason=words, reason_kind="diverged")
                continue
            goal = self.quality(values)
            rung = 3 if goal > 33 else 9 if goal > 23 else EPOCHS
            if rung < EPOCHS:
                words = f"not among the best third after {rung} epochs"
                self.add(TrialState.PRUNED, rung, values, reason=words, reason_kind="early stop")
            else:
                self.add(TrialState.COMPLETE, EPOCHS, values)

    def add_run(self, status: str, ended: datetime | None, started: datetime = STARTED) -> None:
        """Note a run of the search."""
        run = {
            "started": started.astimezone().isoformat(),
            "ended": None if ended is None else ended.astimezone().isoformat(),
            "status": status,
            "cpus": 2.0,
            "gpus": 0.0,
            "trials_at_once": 2,
        }
        self.attribute("runs", [*self.study.user_attrs.get("runs", []), run])

    def finish(self) -> None:
        """The search is over: a champion is chosen and registered."""
        complete = [t for t in self.trials if t.state == TrialState.COMPLETE]
        champion = min(complete, key=lambda trial: trial.values[0])
        self.attribute("champion", champion.number)
        self.attribute("champion_uri", "models:/locator/3")
        self.attribute("bundle", "/m/locator/00003")
        self.add_run("complete", self.clock)
        self.attribute("spent_s", (self.clock - STARTED).total_seconds())
        environment = {"python": "3.11.9", "torch": "2.11.0", "host": "rig-4", "cpus": 2}
        self.attribute("environment", environment)


DISTRIBUTIONS = {
    RATE: FloatDistribution(1e-4, 10**-1.5, log=True),
    KIND: CategoricalDistribution(("gcc-net", "densenet", HOSTILE)),
    HIDDEN: IntDistribution(32, 256, log=True),
    GROWTH: IntDistribution(8, 24),
}
ONE = ("val_error_median_mm",)


def write_plain_study(folder: Path, trials: int = 40) -> StudyWriter:
    """Complete, pruned, failed, infeasible and known trials, mishaps; the search is over."""
    writer = StudyWriter(folder, ONE, f"night {HOSTILE}")
    writer.add(TrialState.COMPLETE, warm_start="studies/evening")
    writer.add_searched(trials)
    writer.add(TrialState.PRUNED, 0, reason="7.1 GFLOP", reason_kind="infeasible")
    words = "out of memory at a batch of 64"
    writer.add(TrialState.COMPLETE, mishaps=[words, "the process was killed by signal 9"])
    writer.add(TrialState.FAIL, 5, reason=words, reason_kind="out of memory", mishaps=[words])
    writer.finish()
    return writer


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain_study(tmp_path_factory.mktemp("night")).folder


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., StudyWriter]:
    def make(*objectives: str, name: str = "study") -> StudyWriter:
        return StudyWriter(tmp_path / name, objectives or ONE, name)

    return make
