"""How good the weights are: every validation event predicted once, over all workers.

Letters: B batch, O raw outputs, K keypoints, D axes, N events.
"""

import time
from typing import Any

import numpy as np
import torch
import torch.distributed

from gerbil_tune.evaluation.score import score
from gerbil_tune.models.localizer import Localizer, read_outputs
from gerbil_tune.training.divergence import non_finite_error
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.memory import free_memory, out_of_memory
from gerbil_tune.training.session import TrainingSession
from gerbil_tune.training.steps import ValidationSet
from gerbil_tune.training.stopping import StopTraining

Predictions = tuple[torch.Tensor, torch.Tensor]
"""Raw outputs (N, O) and true locations (N, K, D) in mm, float32, in the set's order, in main memory."""

_MOST_TIMED_EVENTS = 64
_TIMED_PASSES = 3
_TIMING_BUDGET_S = 0.05


def evaluate(
    model: Localizer, validation: ValidationSet, job: TrainingJob, session: TrainingSession
) -> tuple[dict[str, float], Predictions]:
    """Metrics over all validation events, each counted once, the same on every rank; and the predictions.

    Raises:
        NonFiniteLossError: If a prediction or a location is NaN or infinite.
        StopTraining: If the run is asked to stop.
    """
    if session.world_size > 1:
        share_statistics(model)
    predictions = predict_validation(model, validation, session)
    if not all(values.isfinite().all() for values in predictions):
        what = "the predictions or locations of validation events became NaN or infinite"
        raise non_finite_error(what, job.splits.validation, job.config, session)
    raw_NO, truth_NKD = predictions
    density = read_outputs(job.config, job.setup, raw_NO)
    return {f"val_{name}": value for name, value in score(density, truth_NKD).items()}, predictions


def share_statistics(model: torch.nn.Module) -> None:
    """Give all ranks the running statistics of rank 0, which are the ones that are saved.

    DDP does so at the beginning of each training step; after an epoch's last step they may differ.
    """
    for buffer in model.buffers():
        if buffer.is_floating_point():
            torch.distributed.broadcast(buffer, src=0)


@torch.no_grad()
def predict_validation(
    model: Localizer, validation: ValidationSet, session: TrainingSession
) -> Predictions:
    """Predict every validation event once, over all ranks; the results are in the order of the set.

    Models read the events in orders of their own, and so do ranks. What is compared or put together of
    several runs must have one order.

    Raises:
        StopTraining: If the run is asked to stop; on all ranks.
    """
    model.eval()
    rows: list[tuple[np.ndarray, ...]] = []
    stops = False
    for features, locations_BKD, places_B in validation.batches():
        raw_BO = model.read(features)
        rows.append((places_B, raw_BO.cpu().numpy(), locations_BKD.cpu().numpy()))
        stops = session.stop_requested()
        if stops:
            break
    if session.world_size > 1:
        gathered: list[Any] = [None] * session.world_size
        torch.distributed.all_gather_object(gathered, (rows, stops))
        rows = [row for part, _ in gathered for row in part]
        stops = any(stopped for _, stopped in gathered)
    if stops:
        raise StopTraining
    places_N, raw_NO, truth_NKD = map(np.concatenate, zip(*rows, strict=True))
    order_N = np.argsort(places_N)
    return torch.from_numpy(raw_NO[order_N]), torch.from_numpy(truth_NKD[order_N])


def predict_ms_per_event(
    model: Localizer, validation: ValidationSet, session: TrainingSession
) -> float:
    """Time to predict one batch of at most 64 validation events from their audio, per event.

    Best of some passes on rank 0, in milliseconds; all ranks get the same. Ask after ``evaluate``, which
    warms up. A batch that does not fit into memory is halved.
    """
    duration_s = torch.zeros((), dtype=torch.float64, device=session.device)
    if session.rank == 0:
        duration_s += _timed_prediction_s(model, validation)
    if session.world_size > 1:
        torch.distributed.broadcast(duration_s, src=0)
    return 1e3 * float(duration_s)


def _timed_prediction_s(model: Localizer, validation: ValidationSet) -> float:
    num_events = _MOST_TIMED_EVENTS
    while True:
        try:
            return _timed_batch_s(model, validation, num_events)
        except (RuntimeError, MemoryError) as error:
            if num_events == 1 or not out_of_memory(error):
                raise
        free_memory()
        num_events //= 2


@torch.no_grad()
def _timed_batch_s(model: Localizer, validation: ValidationSet, num_events: int) -> float:
    model.eval()
    batch = validation.audio(num_events)
    on_gpu = batch.audio_BTC.device.type == "cuda"
    durations_s: list[float] = []
    while len(durations_s) < _TIMED_PASSES and sum(durations_s) < _TIMING_BUDGET_S:
        started = time.perf_counter()
        raw_BO = model(batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC)
        _ = model.density(raw_BO).covariance_mm2_BKDD
        if on_gpu:
            torch.cuda.synchronize()
        durations_s.append(time.perf_counter() - started)
    return min(durations_s) / len(batch.lengths_B)
