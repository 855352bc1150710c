"""Gerbilizer's own command lines.

    python -m gerbil_tune.main --data DIR --config C.json --save_path OUT
    python -m gerbil_tune.main --eval --data FILE.h5 --config .../config.json -o PREDICTIONS.h5

Training writes ``OUT/trained_models/<CONFIG_NAME>/<#####>/`` with config.json and weights; evaluation
writes /predictions (n, 2), in mm from the arena's centre.
"""

import argparse
from pathlib import Path

import typer

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError


def main() -> None:
    """Run one of the two command lines."""
    from gerbil_tune.cli.app import run

    run(lambda: dispatch(parse_arguments(None)))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m gerbil_tune.main",
        description="Gerbilizer's command lines. gerbil-tune --help shows everything else.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        help="Gerbilizer's JSON or JSON5 config; with --eval the config.json of a trained model",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with train_set.h5 and val_set.h5 (default: the config's DATA/DATAFILE_PATH); with"
        " --eval one HDF5 file",
    )
    parser.add_argument(
        "--save_path", type=Path, default=Path(), help="root of results (default: here)"
    )
    parser.add_argument("--eval", action="store_true", help="predict instead of train")
    parser.add_argument(
        "-o", "--output_path", type=Path, help="with --eval: default <data>_preds.h5"
    )
    parser.add_argument(
        "--bare", action="store_true", help="write the model straight into --save_path"
    )
    return parser.parse_args(arguments)


def dispatch(arguments: argparse.Namespace) -> None:
    """Train or predict."""
    if arguments.eval:
        _predict(arguments)
    else:
        _train(arguments)


def _train(arguments: argparse.Namespace) -> None:
    from gerbil_tune.cli.train import train_and_export
    from gerbil_tune.config.legacy import is_legacy, legacy_data_path
    from gerbil_tune.config.load import load_experiment

    legacy = is_legacy(arguments.config)
    experiment = _from_legacy(arguments.config) if legacy else load_experiment(arguments.config)
    data = arguments.data or (legacy_data_path(arguments.config) if legacy else None)
    if data is None:
        raise ConfigError(
            f"--data is missing, and {arguments.config} names no DATA/DATAFILE_PATH; add --data with the "
            "folder of train_set.h5 and val_set.h5"
        )
    root: Path = arguments.save_path / "trained_models"
    folder = arguments.save_path if arguments.bare else None
    if folder is not None and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"--bare writes into --save_path, but {folder} is not empty; name a new folder"
        )
    root = folder.resolve().parent if folder is not None else root
    bundle = train_and_export(experiment, [data], root, workers=1, folder=folder)
    typer.echo(f"saved {bundle / 'config.json'}")


def _from_legacy(path: Path) -> ExperimentConfig:
    """A predecessor's config; where its WEIGHTS_PATH leads to a bundle, training begins with that."""
    from gerbil_tune.cli.initial_model import begin_with_weights, bundle_of_weights
    from gerbil_tune.config.legacy import load_legacy
    from gerbil_tune.config.legacy_format import read_upper

    weights = read_upper(path).get("WEIGHTS_PATH")
    bundle = bundle_of_weights(Path(str(weights)), path) if weights else None
    if bundle is None:
        return load_legacy(path)
    return begin_with_weights(load_legacy(path, may_have_weights=True), bundle)


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.data is None:
        raise ConfigError("--eval needs --data with the HDF5 file whose events are predicted")
    from gerbil_tune.cli.predict import raise_on_failures
    from gerbil_tune.inference.job import predict_files
    from gerbil_tune.tracking.model_registry import ResolvedModel
    from gerbil_tune.training.ray_runtime import start_ray

    output = arguments.output_path or arguments.data.with_name(f"{arguments.data.stem}_preds.h5")
    folder = arguments.config.parent if arguments.config.suffix == ".json" else arguments.config
    summary = predict_files(
        ResolvedModel(folder.resolve(), str(folder)),
        [arguments.data],
        output,
        start_ray=lambda _: start_ray(),
    )
    for note in summary.notes:
        typer.echo(f"warning: {note}", err=True)
    typer.echo(f"predicted {summary.num_events:,} events; wrote {output}")
    raise_on_failures(summary)


if __name__ == "__main__":
    main()
