"""The average of the weights, in itself and through training."""

import pytest
import torch
from safetensors.torch import load_file

from gerbil_tune.evaluation.score import score
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.training.averaging import WeightAverage
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.steps import ValidationSet
from gerbil_tune.training.validation import predict_validation

CPU = torch.device("cpu")
TRAINING = {"epochs": 3, "global_batch_size": 40, "ema_decay": 0.8}
BATCH_NORM = {
    "kind": "simplenet",
    "conv": {
        "channels": [4],
        "kernel_sizes": [9],
        "downsample": [True],
        "dilations": [1],
        "normalization": "batch",
    },
}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_it_is_the_exponential_average(make_job, decay):
    model = Localizer(make_job(model=BATCH_NORM).config, make_job().setup)
    average = WeightAverage(model, decay)
    expected = None
    for step in range(20):
        for tensor in model.state_dict().values():
            tensor.copy_(torch.full_like(tensor, step**2))
        average.update(model)
        weight = min(decay, (1 + step) / (10 + step))
        expected = step**2 if expected is None else weight * expected + (1 - weight) * step**2
    ends = {name.split(".")[-1]: value for name, value in average.model.state_dict().items()}
    assert ends["weight"].mean() == pytest.approx(expected)
    assert ends["running_mean"].mean() == pytest.approx(expected)
    assert ends["num_batches_tracked"] == 19**2


def test_what_is_validated_and_exported_is_the_average(make_job, run_job):
    plain, averaged = (
        make_job("plain", training={**TRAINING, "ema_decay": None}),
        make_job("averaged", training=TRAINING),
    )
    first, second = run_job(plain), run_job(averaged)
    # Training is the same, the result is another.
    assert [r["train_loss"] for r in first] == [r["train_loss"] for r in second]
    assert first[-1]["val_nll"] != second[-1]["val_nll"]
    model = Localizer(averaged.config, averaged.setup)
    model.load_state_dict(load_file(averaged.run_dir / "final_weights.safetensors"))
    session = InProcessSession(print, CPU)
    raw, truth = predict_validation(model, ValidationSet(model, averaged, session), session)
    found = score(model.density(raw), truth)
    assert found["nll"] == pytest.approx(second[-1]["val_nll"], rel=1e-5)


@pytest.mark.parametrize("model", [None, BATCH_NORM], ids=["no batch norm", "batch norm"])
def test_it_goes_on_where_it_stopped(make_job, run_job, model):
    sections = {"training": TRAINING} if model is None else {"training": TRAINING, "model": model}
    undisturbed, killed = make_job("undisturbed", **sections), make_job("killed", **sections)

    class KilledError(Exception):
        pass

    def kill(metrics):
        if metrics["epoch"] == 2:
            raise KilledError

    expected = run_job(undisturbed)
    with pytest.raises(KilledError):
        run_job(killed, kill)
    assert run_job(killed) == expected[1:]
    for which in ("best", "final"):
        first, second = (
            load_file(job.run_dir / f"{which}_weights.safetensors") for job in (undisturbed, killed)
        )
        assert all(torch.equal(first[name], second[name]) for name in first)
