"""One run of ``gerbil-tune search`` on a study; the study itself may have had runs before."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from filelock import Timeout

from gerbil_tune.cli.champion import evaluate_champion, print_summary, register_best
from gerbil_tune.cli.lost_ray import left_without_ray
from gerbil_tune.config.space import SpaceFile, default_config
from gerbil_tune.errors import ConfigError, LaunchError, StoppedError

if TYPE_CHECKING:
    from gerbil_tune.cli.training_data import TrainingData
    from gerbil_tune.search.placement import Placement
    from gerbil_tune.search.select import Selection
    from gerbil_tune.search.tasks import StudyListener
    from gerbil_tune.tracking.tracker import StudyStatus


_STOPPED = "stopped; run the same command again to continue where it stopped"
_LOCK_WAIT_S = 2.0
"""Whoever lists the studies holds the lock for a moment."""


def run_study(
    space: SpaceFile,
    opened: "TrainingData",
    name: str,
    study_dir: Path,
    *,
    storage: str | None,
    save_path: Path,
    workers_per_trial: int,
    max_concurrent: int | None,
) -> None:
    """Search until the budget is spent, train the best whole, register it and report.

    Raises:
        ConfigError: If the study was begun on other data or another space.
        LaunchError: If another search holds the study, or this one cannot go on.
        StoppedError: If it was stopped on request; the same call goes on.
    """
    from gerbil_tune.search.driver import told_of_storage
    from gerbil_tune.search.stop_request import signals_interrupt
    from gerbil_tune.search.storage import storage_url, study_lock

    study_dir.mkdir(parents=True, exist_ok=True)
    study_dir = study_dir.resolve()
    try:
        with (
            study_lock(study_dir, timeout_s=_LOCK_WAIT_S),
            signals_interrupt(),
            left_without_ray(),
            told_of_storage(),
        ):
            run = _StudyRun(
                space, opened, name, study_dir, storage or storage_url(study_dir), workers_per_trial
            )
            run.go(save_path, max_concurrent)
    except KeyboardInterrupt:
        raise StoppedError(_STOPPED) from None
    except Timeout:
        raise LaunchError(
            f"another search is running on the study {name!r} ({study_dir}); wait for it, stop it, or give "
            "this one another --name"
        ) from None


def check_data(study: Any, opened: "TrainingData") -> None:
    """Refuse data or a split other than those that the study was begun on.

    The test part may change: nothing that the study has decided depends on it.

    Raises:
        ConfigError: Naming both fingerprints.
    """
    parts = {"data": opened.splits.train, "validation": opened.splits.validation}
    now = {f"{name}_fingerprint": events.fingerprint() for name, events in parts.items()}
    for name, fingerprint in now.items():
        stored = study.user_attrs.get(name, fingerprint)
        if stored != fingerprint:
            raise ConfigError(
                f"the study {study.study_name!r} was begun on other data or another split of them "
                f"({name} {stored[:12]}, now {fingerprint[:12]}); give the search on the new data "
                "another --name"
            )
    for name, fingerprint in now.items():
        study.set_user_attr(name, fingerprint)


class _StudyRun:
    def __init__(
        self,
        space: SpaceFile,
        opened: "TrainingData",
        name: str,
        study_dir: Path,
        storage: str,
        workers_per_trial: int,
    ) -> None:
        from rich.console import Console

        from gerbil_tune.search.book import StudyBook
        from gerbil_tune.search.progress import BudgetView, StudyProgress
        from gerbil_tune.search.recorder import StudyRecorder
        from gerbil_tune.search.stop_request import StopRequest
        from gerbil_tune.search.storage import write_study_file
        from gerbil_tune.search.trial import TRIALS_FOLDER, CheckpointRemover
        from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
        from gerbil_tune.tracking.store import default_tracking_uri

        self.name = name
        self.workers_per_trial = workers_per_trial
        self.opened = opened
        self.study_dir = study_dir
        self.tracking_uri = default_tracking_uri(Path.cwd())
        self.stop = StopRequest(study_dir)
        self.recorder = StudyRecorder(MlflowTracker(self.tracking_uri), study_dir)
        limits = space.study
        self.progress = StudyProgress(Console(), limits.objectives, BudgetView(limits.trials))
        listeners: tuple[StudyListener, ...] = (self.recorder, self.progress)
        if limits.trial_scheduler.kind != "pbt":  # whose members are copied by others
            listeners = (*listeners, CheckpointRemover(study_dir / TRIALS_FOLDER))
        constraints = self._constraints(space, workers_per_trial)
        self.book = StudyBook(storage, name, space, listeners, constraints)
        write_study_file(study_dir, name, storage, space)
        check_data(self.book.study, opened)

    def go(self, save_path: Path, max_concurrent: int | None) -> None:
        """Do all of it."""
        from gerbil_tune.search.run_record import begin_run
        from gerbil_tune.search.stop_request import signals_interrupt

        for sentence in self._earlier_trials():
            typer.echo(sentence)
        placement = self._place(max_concurrent)
        with signals_interrupt():  # Ray has just taken SIGTERM for itself
            begin_run(self.book.study, placement)
            self._begin_tracking()
            selection, page = self._search_and_select(placement, save_path)
        print_summary(self.book.study, selection.bundle, page, self.tracking_uri)

    def _search_and_select(
        self, placement: "Placement", save_path: Path
    ) -> "tuple[Selection, Path]":
        """Everything between the beginning of the run and its end, which is noted in any case."""
        from gerbil_tune.search.run_record import end_run

        status: StudyStatus = "failed"
        try:
            self._search(placement)
            selection = self._select(placement, save_path)
            test = self.opened.splits.test
            evaluate_champion(selection.bundle, test, self.study_dir)
            run_id = self.recorder.parent_run_id
            register_best(self.book.study, selection.bundle, self.tracking_uri, run_id, test)
            status = "complete"
            end_run(self.book.study, status)
            return selection, self._report()
        except (KeyboardInterrupt, StoppedError) as stopped:
            status = "interrupted"
            self._say_stopped(stopped)
        finally:
            end_run(self.book.study, status)
            self.recorder.end(self.book.study, status)

    def _constraints(self, space: SpaceFile, workers: int) -> Any:
        """What the book asks about each proposal; None where the study sets no limits."""
        limits = space.study.constraints
        if limits == type(limits)():
            return None
        from gerbil_tune.search.constraints import violations

        return lambda config: violations(config, self.opened.setup, limits, num_workers=workers)

    def _earlier_trials(self) -> list[str]:
        from gerbil_tune.search.warm_start import add_earlier_trials

        space = self.book.space
        said = add_earlier_trials(self.book.study, space, space.study.warm_start)
        self.book.trials.read_all()
        return said

    def _place(self, max_concurrent: int | None) -> "Placement":
        from gerbil_tune.search.largest import largest_training_bytes
        from gerbil_tune.search.placement import (
            gpu_memory_bytes,
            machine_resources,
            plan_placement,
        )
        from gerbil_tune.training.cluster_nodes import check_training_machines
        from gerbil_tune.training.ray_runtime import start_ray

        start_ray()
        sounds = default_config(self.book.space, self.name).data.source_folder
        check_training_machines(self.opened.splits, sounds, self.study_dir)
        machines = machine_resources()
        has_gpus = any(machine.get("GPU", 0) >= 1 for machine in machines)
        space, workers = self.book.space, self.workers_per_trial
        needed = (
            largest_training_bytes(space, self.opened.setup, workers, space.name)
            if has_gpus
            else 0.0
        )
        return plan_placement(
            machines,
            space.study.placement,
            workers_per_trial=workers,
            max_concurrent=max_concurrent,
            training_bytes=needed,
            gpu_bytes=gpu_memory_bytes() if has_gpus else 0.0,
        )

    def _begin_tracking(self) -> None:
        study, limits = self.book.study, self.book.space.study
        self.recorder.begin(
            study,
            {
                "sampler": limits.sampler.kind,
                "trial_scheduler": limits.trial_scheduler.kind,
                "metric": limits.metric,
                "training_events": len(self.opened.splits.train),
                "validation_events": len(self.opened.splits.validation),
            },
            {"data_fingerprint": study.user_attrs["data_fingerprint"]},
        )
        self.recorder.reconcile(study)

    def _search(self, placement: "Placement") -> None:
        """Run the trials that the budget allows."""
        from gerbil_tune.config.parameters import parameter_paths
        from gerbil_tune.data.files.cache import cache_folder
        from gerbil_tune.search.driver import run_trials
        from gerbil_tune.search.progress import BudgetView
        from gerbil_tune.search.trial import TRIALS_FOLDER, TrialSite, fixes_features

        book, limits = self.book, self.book.space.study
        shares_features = fixes_features(parameter_paths(book.space.parameters))
        self.site = TrialSite(
            self.opened.setup,
            self.opened.splits,
            self.study_dir / TRIALS_FOLDER,
            limits.metric,
            self.stop.file,
            placement.workers_per_trial,
            placement.cpus_per_worker,
            placement.use_gpu,
            cache_folder("features") if shares_features else None,
        )
        done = book.num_closed()
        again = f", {done} done before" if done else ""
        typer.echo(f"{limits.trials} trials{again}, {placement.describe()}")
        self.progress.budget = BudgetView(
            limits.trials,
            limits.time_budget_s,
            limits.epoch_budget,
            cpus_per_trial=placement.workers_per_trial * placement.cpus_per_worker,
            gpus_per_trial=placement.workers_per_trial * placement.gpus_per_worker,
        )
        self.progress.begin(book.study)
        try:
            with self.stop.on_signals(), self.progress.shown():
                run_trials(
                    book,
                    self.site,
                    placement,
                    self.stop,
                    tune_dir=self.study_dir / "tune",
                    redraw=self.progress.redraw,
                )
        finally:
            self.stop.withdraw()
        book.note_time()
        self._conclude()

    def _conclude(self) -> None:
        """Say why the trials have ended; go on only where the study is over."""
        cause, reason = self.stop.cause, self.stop.reason
        if cause == "signal":
            raise KeyboardInterrupt
        if cause == "disk full":
            raise LaunchError(
                f"a trial could not write its checkpoint ({reason}); make room on the disk, and the same "
                "command goes on"
            )
        if cause == "failures":
            raise LaunchError(
                f"{reason} ({self._failures()}); gerbil-tune report {self.name} says more, and the same "
                "command goes on"
            )
        if reason:
            typer.echo(f"no more trials: {reason}")
        self.book.close_unfinished(reason or "the study ended")

    def _failures(self) -> str:
        kinds = Counter(
            trial.user_attrs.get("reason_kind", "unknown")
            for trial in self.book.study.get_trials(deepcopy=False)
            if trial.state.name == "FAIL"
        )
        return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())

    def _select(self, placement: "Placement", save_path: Path) -> "Selection":
        """Train the best trials whole and choose the champion."""
        from gerbil_tune.cli.train import echo_epoch
        from gerbil_tune.inference.predict import predict_with_bundle
        from gerbil_tune.search.select import select_champion

        test = self.opened.splits.test
        limits = self.book.space.study
        selection = select_champion(
            self.book.study,
            self.book.config_of,
            self.site,
            study_dir=self.study_dir,
            root=save_path,
            top_k=limits.refit_top,
            refit_epochs=limits.refit_epochs,
            test_events=None if test is None or test.is_impulse_response else test,
            predict=predict_with_bundle,
            use_gpu=placement.use_gpu,
            say=typer.echo,
            on_epoch=echo_epoch,
        )
        if selection.rows:
            from gerbil_tune.evaluation.results import render_table

            typer.echo(render_table(selection.rows))
        for sentence in selection.sentences:
            typer.echo(sentence)
        return selection

    def _report(self) -> Path:
        """Write the report, and put it and the champion's figures into the parent run."""
        from gerbil_tune.search.report import write_report

        study = self.book.study
        page = write_report(self.study_dir, study)
        self.recorder.log_artifact(page)
        self.recorder.log_artifact(page.parent / "figures")
        best = self.book.best()
        if best is not None:
            self.recorder.log_summary(
                {f"best_{self.book.space.study.metric}": best.values[0]},
                {"champion": str(study.user_attrs.get("champion_uri", ""))},
            )
        return page

    def _say_stopped(self, stopped: BaseException) -> NoReturn:
        typer.echo(f"gerbil-tune report {self.name} shows what there is so far")
        if isinstance(stopped, StoppedError):
            raise stopped
        raise StoppedError(_STOPPED)
