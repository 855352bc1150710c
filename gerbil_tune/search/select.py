"""From the best trial to a deployable bundle: train its configuration once more with all workers."""

import shutil
from collections.abc import Callable
from pathlib import Path

from optuna.trial import FrozenTrial

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.trial import TrialSite
from gerbil_tune.training.export import export_bundle
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.trainer import RAY_TRAIN_FOLDER, train_with_workers


def refit_workers(global_batch_size: int, *, use_gpu: bool) -> int:
    """Workers of the final training: one a GPU, else two, as far as the batch divides evenly."""
    import ray

    have = ray.cluster_resources()
    most = int(have.get("GPU", 0)) if use_gpu else min(2, int(have.get("CPU", 1)))
    return max(n for n in range(1, max(1, most) + 1) if global_batch_size % n == 0)


def refit_epochs(book: StudyBook, config: ExperimentConfig) -> int:
    """Epochs of the final training: what the study says, else as searched."""
    return book.space.study.refit_epochs or config.training.epochs


def finished_refit(book: StudyBook, best: FrozenTrial) -> Path | None:
    """Return the bundle of an earlier refit of the same trial, or None."""
    done = book.study.user_attrs
    if done.get("champion") == best.number and Path(done.get("bundle", "")).is_dir():
        return Path(done["bundle"])
    return None


def refit(
    book: StudyBook,
    best: FrozenTrial,
    site: TrialSite,
    *,
    study_dir: Path,
    root: Path,
    num_workers: int,
    on_epoch: Callable[[dict[str, float]], None],
) -> Path:
    """Train the best trial's configuration with ``num_workers`` and export it.

    An interrupted refit goes on from its checkpoint.

    Returns:
        The bundle's folder.
    """
    config = book.config_of(best)
    training = config.training.model_copy(update={"epochs": refit_epochs(book, config)})
    config = config.model_copy(update={"training": training})
    run_dir = study_dir / "refit" / f"trial-{best.number:05d}"
    job = TrainingJob(config, site.setup, site.splits, run_dir, site.metric)
    train_with_workers(job, num_workers=num_workers, use_gpu=site.use_gpu, on_epoch=on_epoch)
    bundle = export_bundle(
        job,
        root,
        data_fingerprint=book.study.user_attrs["data_fingerprint"],
        provenance={
            "study": book.study.study_name,
            "trial": best.number,
            "trials": book.num_closed(),
            "workers": num_workers,
            "objective": book.space.study.metric,
        },
    )
    book.study.set_user_attr("champion", best.number)
    book.study.set_user_attr("bundle", str(bundle))
    shutil.rmtree(run_dir.parent / RAY_TRAIN_FOLDER, ignore_errors=True)
    return bundle
