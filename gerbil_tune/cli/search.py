"""``gerbil-tune search``: find the best configuration, train it whole, register it, report."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gerbil_tune.cli.options import (
    CacheDirOption,
    DataOption,
    EventsOption,
    SavePathOption,
    SetOption,
    SplitOption,
    parse_duration_s,
)
from gerbil_tune.config.schema import NAME_PATTERN
from gerbil_tune.config.space import SpaceFile, boundary_configs, default_config, load_space
from gerbil_tune.errors import ConfigError

if TYPE_CHECKING:
    from gerbil_tune.cli.training_data import TrainingData
    from gerbil_tune.search.driver import Placement
    from gerbil_tune.tracking.tracker import Tracker

EXIT_RESUMABLE = 75


def search(
    space_path: Annotated[
        Path, typer.Argument(metavar="SPACE.yaml", help="What is searched; see search_spaces/.")
    ],
    data: DataOption,
    name: Annotated[
        str | None, typer.Option(metavar="S", help="Study name; default: the space's name.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Trials that the study shall hold; default: the space's."
        ),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            metavar="8h", help="Start and run trials for so long (s, m, h, d); default: no limit."
        ),
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(min=1, metavar="N", help="DDP workers of each trial (a CPU or GPU each).")
    ] = 1,
    max_concurrent: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials at a time; default: as many as fit."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Optuna storage; default: sqlite in the study's folder."),
    ] = None,
    save_path: SavePathOption = Path("trained_models"),
    split: SplitOption = None,
    events: EventsOption = None,
    cache_dir: CacheDirOption = None,
    overrides: SetOption = None,
) -> None:
    """Search a space; the same command again continues the study where it stopped.

    Leaves studies/<name>/, the tracking store mlflow.db with mlartifacts/, the champion's bundle under
    trained_models/ and its version in the model registry with the alias champion.
    """
    space = load_space(space_path, tuple(overrides or ()))
    study_name = name or space.name
    if not re.fullmatch(NAME_PATTERN, study_name):
        raise ConfigError(
            f"--name {study_name!r} must be letters, digits, '.', '_' and '-', and begin with one of the "
            "first two"
        )
    budget_s = parse_duration_s(time_budget) if time_budget else space.study.time_budget_s
    study_dir = Path("studies") / study_name
    _check_batches(space, workers_per_trial, str(space_path))
    from gerbil_tune.cli.training_data import describe, open_training_data

    base = default_config(space, str(space_path))
    opened = open_training_data(data, base.data, study_dir, split=split, events=events)
    _check_configs(space, opened, str(space_path))
    typer.echo(f"study {study_name}: {describe(opened)}")

    from gerbil_tune.search.book import storage_url
    from gerbil_tune.search.report import write_report

    study_dir.mkdir(parents=True, exist_ok=True)
    run = _StudyRun(space, study_name, study_dir.resolve(), storage or storage_url(study_dir))
    run.check_data(opened)
    finished = run.search(
        opened,
        total_trials=trials or space.study.trials,
        time_budget_s=budget_s,
        workers_per_trial=workers_per_trial,
        max_concurrent=max_concurrent,
    )
    if not finished and not run.out_of_time:
        run.stop()
    try:
        bundle = run.finish(save_path.resolve(), opened)
    except KeyboardInterrupt:
        run.stop()
    page = write_report(run.study_dir, run.book.study)
    run.log_results(page)
    run.close("complete")
    run.print_summary(bundle, page)


def _check_batches(space: SpaceFile, workers: int, source: str) -> None:
    for config in boundary_configs(space, source):
        batch = config.training.global_batch_size
        if batch % workers:
            raise ConfigError(
                f"{source}: training/global_batch_size may be {batch}, which {workers} workers cannot "
                "share evenly; change it or --workers-per-trial"
            )


def _check_configs(space: SpaceFile, opened: "TrainingData", source: str) -> None:
    """Refuse before Ray starts what every trial would refuse one by one."""
    from gerbil_tune.cli.training_data import check_augmentation

    for config in boundary_configs(space, source):
        check_augmentation(config.augmentation, opened.setup)


class _StudyRun:
    """One run of the command on a study; the study itself may have had runs before."""

    def __init__(self, space: SpaceFile, name: str, study_dir: Path, storage: str) -> None:
        from rich.console import Console

        from gerbil_tune.search.book import StudyBook, write_study_file
        from gerbil_tune.search.progress import StudyProgress
        from gerbil_tune.search.recorder import StudyRecorder
        from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
        from gerbil_tune.tracking.store import default_tracking_uri

        self.name = name
        self.study_dir = study_dir
        self.out_of_time = False
        self.tracking_uri = default_tracking_uri(Path.cwd())
        self.tracker: Tracker = MlflowTracker(self.tracking_uri)
        self.progress = StudyProgress(0, space.study.metric, Console())
        recorder = StudyRecorder(self.tracker)
        self.book: StudyBook = StudyBook(storage, name, space, (recorder, self.progress))
        recorder.book = self.book
        write_study_file(study_dir, name, storage, space)

    def search(
        self,
        opened: "TrainingData",
        *,
        total_trials: int,
        time_budget_s: float | None,
        workers_per_trial: int,
        max_concurrent: int | None,
    ) -> bool:
        """Run the missing trials; return whether the study is full."""
        from gerbil_tune.search.driver import plan_placement, run_trials
        from gerbil_tune.search.trial import TrialSite
        from gerbil_tune.training.ray_runtime import start_ray

        started = time.monotonic()
        start_ray()
        self.placement: Placement = plan_placement(
            workers_per_trial=workers_per_trial, max_concurrent=max_concurrent
        )
        space = self.book.space
        self.site: TrialSite = TrialSite(
            opened.setup,
            opened.splits,
            self.study_dir / "trials",
            space.study.metric,
            workers_per_trial,
            self.placement.use_gpu,
        )
        self._begin_tracking(opened)
        done = self.book.num_closed()
        best = self.book.best()
        self.progress.total_trials = total_trials
        self.progress.done_before = done
        self.progress.best_before = best.value if best is not None else None
        again = f", {done} done before" if done else ""
        typer.echo(f"{total_trials} trials{again}, {self.placement.max_concurrent} at a time")
        with self.progress.shown():
            finished = run_trials(
                self.book,
                self.site,
                self.placement,
                total_trials=total_trials,
                time_budget_s=time_budget_s,
                tune_dir=self.study_dir / "tune",
                redraw=self.progress.redraw,
            )
        if time_budget_s is not None and not finished:
            self.out_of_time = time.monotonic() - started >= time_budget_s
        return finished

    def check_data(self, opened: "TrainingData") -> None:
        """Refuse data or a split other than those that the study was begun on.

        The test part may change: nothing that the study has decided depends on it.

        Raises:
            ConfigError: Naming both fingerprints.
        """
        study, splits = self.book.study, opened.splits
        parts = {"data": splits.train, "validation": splits.validation}
        now = {f"{name}_fingerprint": events.fingerprint() for name, events in parts.items()}
        for name, fingerprint in now.items():
            stored = study.user_attrs.get(name, fingerprint)
            if stored != fingerprint:
                raise ConfigError(
                    f"the study {self.name!r} was begun on other data or another split of them "
                    f"({name} {stored[:12]}, now {fingerprint[:12]}); give the search on the new data "
                    "another --name"
                )
        for name, fingerprint in now.items():
            study.set_user_attr(name, fingerprint)

    def _begin_tracking(self, opened: "TrainingData") -> None:
        fingerprint = self.book.study.user_attrs["data_fingerprint"]
        self.parent_run_id = self.tracker.start_study(
            self.name,
            {
                "sampler": self.book.space.study.sampler.kind,
                "trial_scheduler": self.book.space.study.trial_scheduler.kind,
                "metric": self.book.space.study.metric,
                "training_events": len(opened.splits.train),
                "validation_events": len(opened.splits.validation),
            },
            {"data_fingerprint": fingerprint},
        )

    def finish(self, save_path: Path, opened: "TrainingData") -> Path:
        """Refit, register and evaluate the champion; return its bundle."""
        from gerbil_tune.cli.registry import CHAMPION, register_bundle_folder
        from gerbil_tune.search.select import finished_refit
        from gerbil_tune.tracking.model_registry import set_alias

        best = self.book.best()
        if best is None:
            raise ConfigError(
                f"no trial of the study {self.name!r} was completed, so there is nothing to keep; its "
                f"trials say why: gerbil-tune report {self.name}"
            )
        bundle = finished_refit(self.book, best) or self._refit(save_path)
        if self.book.study.user_attrs.get("registered_bundle") != str(bundle):
            model, version = register_bundle_folder(
                bundle, self.tracking_uri, run_id=self.parent_run_id
            )
            set_alias(model, CHAMPION, version, self.tracking_uri)
            self.book.study.set_user_attr("champion_uri", f"models:/{model}/{version}")
            self.book.study.set_user_attr("registered_bundle", str(bundle))
        if opened.splits.test is not None and not opened.splits.test.is_impulse_response:
            self._evaluate(bundle, opened)
        return bundle

    def _refit(self, save_path: Path) -> Path:
        """Train the best trial's configuration whole and export it."""
        from gerbil_tune.cli.train import echo_epoch
        from gerbil_tune.search.select import refit, refit_epochs, refit_workers

        best = self.book.best()
        assert best is not None
        config = self.book.config_of(best)
        workers = refit_workers(config.training.global_batch_size, use_gpu=self.site.use_gpu)
        epochs = refit_epochs(self.book, config)
        typer.echo(
            f"best: trial {best.number}, {self.book.space.study.metric} {best.value:.1f}; training it for "
            f"{epochs} epochs with {workers} workers"
        )
        return refit(
            self.book,
            best,
            self.site,
            study_dir=self.study_dir,
            root=save_path,
            num_workers=workers,
            on_epoch=lambda metrics: echo_epoch(metrics, epochs),
        )

    def _evaluate(self, bundle: Path, opened: "TrainingData") -> None:
        """Score the champion on the test events, which nothing has seen."""
        from gerbil_tune.cli.evaluate import evaluate_models, print_table

        assert opened.splits.test is not None
        result = evaluate_models({"champion": bundle}, opened.splits.test)
        result.save(self.study_dir / "evaluation.h5")
        print_table(result)

    def log_results(self, page: Path) -> None:
        """Put the report, the figures and the champion's figures of merit into the parent run."""
        self.tracker.log_artifact(self.parent_run_id, page)
        self.tracker.log_artifact(self.parent_run_id, page.parent / "figures", "figures")
        best = self.book.best()
        if best is not None and best.value is not None:
            self.tracker.log_summary(
                self.parent_run_id,
                {f"best_{self.book.space.study.metric}": best.value},
                {"champion": str(self.book.study.user_attrs.get("champion_uri", ""))},
            )

    def stop(self) -> NoReturn:
        """End a run that was stopped on request and can go on."""
        self.close("interrupted")
        typer.echo("stopped; run the same command again to continue where it stopped")
        raise typer.Exit(EXIT_RESUMABLE)

    def close(self, status: str) -> None:
        """End the parent run as complete or interrupted."""
        self.tracker.end_study("complete" if status == "complete" else "interrupted")

    def print_summary(self, bundle: Path, page: Path) -> None:
        """Say what there is now and what to do next."""
        model = self.book.study.user_attrs["champion_uri"].rpartition("/")[0]
        typer.echo(
            f"champion: {model}@champion ({_short(bundle)})\n"
            "next:\n"
            f"  mlflow ui --backend-store-uri {self._short_uri()}      every trial, at http://127.0.0.1:5000\n"
            f"  open {_short(page)}      what was tried and how good the champion is\n"
            f"  gerbil-tune predict --model {model}@champion --data YOUR.h5 -o predictions.h5"
        )

    def _short_uri(self) -> str:
        return self.tracking_uri.replace(f"{Path.cwd().as_posix()}/", "")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
