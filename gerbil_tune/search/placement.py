"""Fits trials into the cluster: what each gets, and how many run at a time.

Tune waits for ever for resources that a cluster does not have, so what cannot fit is refused here, by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gerbil_tune.config.study import PlacementConfig
from gerbil_tune.errors import LaunchError

_MOST_TRIALS_A_GPU = 8
_GPU_RESERVE_BYTES = 1.5e9
"""Of each process on a GPU: its CUDA context and the libraries' workspace."""
_GPU_FILL = 0.9


@dataclass(frozen=True)
class Placement:
    """What each trial gets and how many run at a time.

    Attributes:
        max_concurrent: Trials at a time.
        workers_per_trial: DDP ranks of each.
        cpus_per_worker: CPUs of each rank.
        gpus_per_worker: GPUs of each rank, perhaps a fraction; 0: it computes on CPUs.
    """

    max_concurrent: int
    workers_per_trial: int
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0

    @property
    def use_gpu(self) -> bool:
        """Whether workers have GPUs."""
        return self.gpus_per_worker > 0

    def describe(self) -> str:
        """In words: how many at a time, and with what."""
        each = f"{self.cpus_per_worker:g} CPU"
        if self.use_gpu:
            each += f" and {self.gpus_per_worker:.3g} GPU"
        workers = f", {self.workers_per_trial} workers each" if self.workers_per_trial > 1 else ""
        return f"{self.max_concurrent} at a time{workers} ({each} a worker)"


def plan_placement(
    resources: Mapping[str, float],
    config: PlacementConfig,
    *,
    workers_per_trial: int = 1,
    max_concurrent: int | None = None,
    training_bytes: float = 0.0,
    gpu_bytes: float = 0.0,
) -> Placement:
    """Fit trials into a cluster.

    Args:
        resources: What the cluster has, as Ray counts it: CPU, GPU.
        config: What a worker gets.
        workers_per_trial: DDP ranks of each trial.
        max_concurrent: Trials at a time; None: as many as fit.
        training_bytes: Estimated memory of one worker of the largest configuration; 0: unknown.
        gpu_bytes: Memory of the smallest GPU; 0: unknown.

    Raises:
        LaunchError: If what is asked can never fit, naming the resource.
    """
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    share = config.gpus_per_worker
    if share is None:
        share = _gpu_share(cpus, gpus, config, workers_per_trial, training_bytes, gpu_bytes)
    if workers_per_trial > 1 and 0 < share < 1:
        raise LaunchError(
            f"study/placement/gpus_per_worker is {share:g}, but {workers_per_trial} workers of one trial "
            "cannot share a GPU (NCCL refuses it); give each a whole one, or --workers-per-trial 1"
        )
    if share > 0 and gpu_bytes and training_bytes > gpu_bytes * _GPU_FILL:
        raise LaunchError(
            f"the largest configuration of the space needs about {training_bytes / 1e9:.1f} GB of GPU "
            f"memory, but the GPUs have {gpu_bytes / 1e9:.1f} GB; set study/constraints/max_memory_gb, or "
            "a smaller training/global_batch_size"
        )
    need = {"CPU": config.cpus_per_worker, "GPU": share}
    slots = {
        name: _slots(resources.get(name, 0.0), workers_per_trial * amount)
        for name, amount in need.items()
        if amount
    }
    scarce = min(slots, key=lambda name: slots[name])
    fits, have = slots[scarce], resources.get(scarce, 0.0)
    per_trial = workers_per_trial * need[scarce]
    if fits < 1:
        raise LaunchError(
            f"a trial of {workers_per_trial} workers needs {per_trial:g} {scarce}, but the cluster has "
            f"{have:g}; lower --workers-per-trial or study/placement"
        )
    if max_concurrent is not None and max_concurrent > fits:
        raise LaunchError(
            f"--max-concurrent {max_concurrent} trials of {workers_per_trial} workers need "
            f"{max_concurrent * per_trial:g} {scarce}, but the cluster has {have:g}, enough for {fits}; "
            "lower it, or leave it out"
        )
    return Placement(max_concurrent or fits, workers_per_trial, config.cpus_per_worker, share)


def _gpu_share(
    cpus: float,
    gpus: float,
    config: PlacementConfig,
    workers: int,
    training_bytes: float,
    gpu_bytes: float,
) -> float:
    """Part of a GPU that a worker gets: as little as its memory needs and there are CPUs for."""
    if gpus < 1:
        return 0.0
    if workers > 1 or not training_bytes or not gpu_bytes:
        return 1.0
    by_memory = int(gpu_bytes * _GPU_FILL / (training_bytes + _GPU_RESERVE_BYTES))
    by_cpus = int(cpus / gpus / config.cpus_per_worker)
    return 1.0 / max(1, min(by_memory, by_cpus, _MOST_TRIALS_A_GPU))


def _slots(have: float, need: float) -> int:
    # A GPU has no more than its whole number of shares: half a share left on each of two is none.
    if need < 1:
        return int(have) * int(1 / need + 1e-9) if have >= 1 else int(have / need + 1e-9)
    return math.floor(have / need + 1e-9)


def gpu_memory_bytes() -> float:
    """Memory of the smallest GPU of the cluster that Ray is connected to; 0 if there is none."""
    import ray

    @ray.remote(num_gpus=1, num_cpus=0)
    def look() -> float:
        import torch

        return float(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else 0.0

    hosts = [host for host in ray.nodes() if host["Alive"] and host["Resources"].get("GPU", 0) >= 1]
    looks = [
        look.options(resources={f"node:{host['NodeManagerAddress']}": 0.001}).remote()
        for host in hosts
    ]
    found = [size for size in ray.get(looks) if size > 0]
    return min(found, default=0.0)
