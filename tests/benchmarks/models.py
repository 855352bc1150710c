"""Events a second of every architecture, and of simplenet beside the way in which its predecessor runs it.

The predecessor's way: two convolutions a layer, one for tanh and one for the gate, in float32 with
BatchNorm1d, and a training step that runs the network twice before one backward pass. Both networks have
its default layers, the same head and loss, and SGD. Ours is timed from the audio on, in the precision that
training/precision auto takes. The two take turns, so that whatever else the machine does slows down both;
ratios are medians over rounds.

The table has each architecture at its defaults, from the audio on. Operations are those of direct
convolutions (``gerbil_tune.models.cost``), three times as many in training; the peak that they are a share
of is that of a product of two large matrices of the same type, measured in between. On a GPU networks are
compiled.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import model_cost
from gerbil_tune.models.localizer import Localizer, autocast_dtype
from gerbil_tune.models.registry import ARCHITECTURES
from gerbil_tune.training.acceleration import accelerated, compile_network
from gerbil_tune.training.checkpoints import Progress
from gerbil_tune.training.optimizer import make_optimizer, optimizer_step
from gerbil_tune.training.state import TrainState

NUM_EVENTS, NUM_MICROPHONES, NUM_SAMPLES = 32, 4, 8192
MICROPHONES_MM = tuple((x, y, 350.0) for y in (178.0, -178.0) for x in (-286.0, 286.0))
SETUP = RecordingSetup(NUM_MICROPHONES, 125_000.0, (572.0, 356.0), MICROPHONES_MM)
CHANNELS = (16, 16, 32, 32, 64, 64, 128, 128, 256, 256)
NUM_TAPS = 33
PREDECESSORS_LIST = {
    "channels": CHANNELS,
    "kernel_sizes": (NUM_TAPS,) * len(CHANNELS),
    "downsample": (False, True) * (len(CHANNELS) // 2),
    "dilations": (1,) * len(CHANNELS),
    "normalization": "batch",
}
SGD = {"kind": "sgd", "learning_rate": 1e-3, "momentum": 0.7}
TRAINING_PASSES = 3
"""A backward pass has twice the operations of a forward pass."""


class PredecessorsLayer(nn.Module):
    """vocalocator's gated layer, as it runs it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.fc = nn.Conv1d(in_channels, out_channels, NUM_TAPS, stride)
        self.gc = nn.Conv1d(in_channels, out_channels, NUM_TAPS, stride)
        self.batch_norm = nn.BatchNorm1d(out_channels)

    def forward(self, x_BCT: Tensor) -> Tensor:
        signal = self.fc(x_BCT)
        gate = self.gc(x_BCT)
        activated = 0.95 * torch.tanh(signal) + 0.05 * signal
        return self.batch_norm(activated * torch.sigmoid(gate))


class PredecessorsNetwork(nn.Module):
    """vocalocator's SimpleNetwork."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        widths = (NUM_MICROPHONES, *CHANNELS)
        self.layers = nn.Sequential(
            *(
                PredecessorsLayer(*widths[i : i + 2], stride=2 if halves else 1)
                for i, halves in enumerate(PREDECESSORS_LIST["downsample"])
            )
        )
        self.coord_readout = nn.Linear(widths[-1], num_outputs)

    def forward(self, audio_BTC: Tensor) -> Tensor:
        return self.coord_readout(self.layers(audio_BTC.transpose(1, 2)).mean(2))


class Ours:
    """A configuration with a batch of noise."""

    def __init__(self, config: ExperimentConfig, device: torch.device) -> None:
        torch.manual_seed(0)
        self.config = config
        self.model = Localizer(config, SETUP).to(device)
        self.model.autocast_dtype = autocast_dtype(config, device)
        if config.training.compile:
            compile_network(self.model.network, print)
        optimizer = make_optimizer(config.optimizer, self.model)
        self.state = TrainState(self.model, optimizer, Progress(), {})
        self.audio_BTC = torch.randn(NUM_EVENTS, NUM_SAMPLES, NUM_MICROPHONES, device=device)
        self.lengths_B = torch.full((NUM_EVENTS,), NUM_SAMPLES, device=device)
        self.locations_BKD = 50.0 * torch.randn(NUM_EVENTS, 1, 2, device=device)

    def train(self) -> None:
        self.model.train()
        with torch.no_grad():
            features = self.model.extractor(self.audio_BTC, self.lengths_B)
        clip_norm = self.config.training.clip_norm
        optimizer_step(self.state, self.model.network, features, self.locations_BKD, clip_norm)

    @torch.inference_mode()
    def predict(self) -> None:
        self.model.eval()
        self.model.density(self.model(self.audio_BTC, self.lengths_B))


class Predecessor:
    """Its network on the same batch, with our head and loss."""

    def __init__(self, ours: Ours) -> None:
        self.ours = ours
        network = PredecessorsNetwork(ours.model.head.num_outputs)
        self.network = network.to(ours.audio_BTC.device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 1e-3, momentum=0.7)

    def train(self) -> None:
        self.network.train()
        self.optimizer.zero_grad()
        self.network(self.ours.audio_BTC)
        density = self.ours.model.density(self.network(self.ours.audio_BTC))
        self.ours.model.loss(density, self.ours.locations_BKD).mean().backward()
        self.optimizer.step()

    @torch.inference_mode()
    def predict(self) -> None:
        self.network.eval()
        self.ours.model.density(self.network(self.ours.audio_BTC))


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Mean time of a work that was done just before."""
    work()
    _finish()
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    _finish()
    return (time.perf_counter() - begin) / repeats


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(works: Mapping[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, list]:
    """Seconds of each work in each round; a work is done so many times in a row."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, repeats) in works.items():
            times[name].append(seconds(work, repeats))
    return times


def peak_gflops(device: torch.device, dtype: torch.dtype, rounds: int) -> float:
    """Best rate of a product of two large matrices, 1e9 operations a second."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / min(seconds(lambda: a @ b, 2) for _ in range(rounds)) / 1e9


def compare(device: torch.device, rounds: int) -> None:
    """Print how many times the predecessor's events a second ours are."""
    config = ExperimentConfig.model_validate(
        {
            "data": {"crop_length": NUM_SAMPLES},
            "model": {"kind": "simplenet", "conv": PREDECESSORS_LIST},
            "optimizer": SGD,
        }
    )
    ours = Ours(config, device)
    predecessor = Predecessor(ours)
    for name in ("predict", "train"):
        works = {"ours": (getattr(ours, name), 4), "theirs": (getattr(predecessor, name), 1)}
        times = alternate(works, rounds)
        ratios = [theirs / mine for mine, theirs in zip(*times.values(), strict=True)]
        mine, theirs = (NUM_EVENTS / statistics.median(taken) for taken in times.values())
        print(
            f"simplenet {name:8s} {mine:8,.1f} events/s   predecessor's way {theirs:7,.1f}   "
            f"x{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def measure(kind: str, device: torch.device, rounds: int) -> None:
    """Print a line of the table."""
    config = ExperimentConfig.model_validate(
        {
            "data": {"crop_length": NUM_SAMPLES},
            "model": {"kind": kind},
            "training": {"compile": device.type == "cuda"},
        }
    )
    cost = model_cost(config, SETUP)
    with accelerated(config.training):
        ours = Ours(config, device)
        dtype = ours.model.autocast_dtype or torch.float32
        peak = peak_gflops(device, dtype, rounds)
        times = alternate({"train": (ours.train, 1), "predict": (ours.predict, 1)}, rounds)
    train_rate, predict_rate = (NUM_EVENTS / statistics.median(times[name]) for name in times)
    train_share = TRAINING_PASSES * cost.gflop_per_event * train_rate / peak
    print(
        f"{kind:12s} {str(dtype).removeprefix('torch.'):9s} {cost.parameters:11,d} "
        f"{cost.gflop_per_event:9.3f} {train_rate:10,.0f} {predict_rate:10,.0f} "
        f"{train_share:9.0%} {cost.gflop_per_event * predict_rate / peak:9.0%}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", help="one architecture of the table, or 'ratios'")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{arguments.threads} threads"
    print(f"{name}: {NUM_EVENTS} events, {NUM_MICROPHONES} microphones, {NUM_SAMPLES} samples")
    if arguments.only in (None, "ratios"):
        compare(device, arguments.rounds)
    if arguments.only == "ratios":
        return
    print(
        f"{'':12s} {'type':9s} {'parameters':>11s} {'GFLOP/ev.':>9s} {'train ev/s':>10s} "
        f"{'pred. ev/s':>10s} {'of peak':>9s} {'of peak':>9s}"
    )
    own = sorted(kind for kind in ARCHITECTURES if not kind.startswith("legacy-"))
    for kind in [arguments.only] if arguments.only else own:
        measure(kind, device, arguments.rounds)


if __name__ == "__main__":
    main()
