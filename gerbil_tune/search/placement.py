"""Fits trials into the cluster: what each gets, and how many run at a time.

Tune waits for ever for resources that a cluster does not have, so what cannot fit is refused here, by name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gerbil_tune.config.study import PlacementConfig
from gerbil_tune.errors import LaunchError
from gerbil_tune.units import counted

Machine = Mapping[str, float]
"""What one machine has, by Ray's names of resources: CPU, GPU; what it has none of may be missing."""

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
    machines: Machine | Sequence[Machine],
    config: PlacementConfig,
    *,
    workers_per_trial: int = 1,
    max_concurrent: int | None = None,
    training_bytes: float = 0.0,
    gpu_bytes: float = 0.0,
) -> Placement:
    """Fit trials into a cluster.

    Machine by machine, for a worker takes all it needs from one of them; the workers of a trial may be on
    several. The process that looks after the workers of a trial takes its bit of a CPU from theirs.

    Args:
        machines: What each has, as Ray counts it: CPU, GPU; of a single machine, just that. The sum of
            several is no machine.
        config: What a worker gets.
        workers_per_trial: DDP ranks of each trial.
        max_concurrent: Trials at a time; None: as many as fit.
        training_bytes: Estimated memory of one worker of the largest configuration; 0: unknown.
        gpu_bytes: Memory of the smallest GPU; 0: unknown.

    Raises:
        LaunchError: If what is asked can never fit, naming the resource.
    """
    if isinstance(machines, Mapping):
        machines = [machines]
    share = config.gpus_per_worker
    if share is None:
        share = _gpu_share(machines, config, workers_per_trial, training_bytes, gpu_bytes)
    _check_gpus(share, workers_per_trial, training_bytes, gpu_bytes)
    need = {"CPU": config.cpus_per_worker, "GPU": share}
    num_workers = sum(_num_workers(machine, need) for machine in machines)
    fits = num_workers // workers_per_trial
    if fits < 1:
        raise LaunchError(_why_none_fits(machines, need, num_workers, workers_per_trial))
    if max_concurrent is not None and max_concurrent > fits:
        each = f" of {workers_per_trial} workers" if workers_per_trial > 1 else ""
        raise LaunchError(
            f"--max-concurrent {max_concurrent} trials{each} need {_in_words(need)} for each worker, and the "
            f"cluster has room for {fits}{_largest(machines, need)}; lower it, or leave it out"
        )
    return Placement(max_concurrent or fits, workers_per_trial, config.cpus_per_worker, share)


def _check_gpus(
    share: float, workers_per_trial: int, training_bytes: float, gpu_bytes: float
) -> None:
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


def _gpu_share(
    machines: Sequence[Machine],
    config: PlacementConfig,
    workers: int,
    training_bytes: float,
    gpu_bytes: float,
) -> float:
    """Part of a GPU that a worker gets: as little as its memory needs and there are CPUs for."""
    with_gpus = [machine for machine in machines if machine.get("GPU", 0.0) >= 1]
    if not with_gpus:
        return 0.0
    if workers > 1 or not training_bytes or not gpu_bytes:
        return 1.0
    by_memory = int(gpu_bytes * _GPU_FILL / (training_bytes + _GPU_RESERVE_BYTES))
    # Where a machine has fewer CPUs for each GPU than another, it is they that limit it.
    by_cpus = max(int(m.get("CPU", 0.0) / m["GPU"] / config.cpus_per_worker) for m in with_gpus)
    return 1.0 / max(1, min(by_memory, by_cpus, _MOST_TRIALS_A_GPU))


def _num_workers(machine: Machine, need: Mapping[str, float]) -> int:
    """Workers for which a machine has room."""
    return min(
        _slots(name, machine.get(name, 0.0), amount) for name, amount in need.items() if amount
    )


def _slots(name: str, have: float, need: float) -> int:
    # A GPU has no more than its whole number of shares: half a share left on each of two is none.
    if name == "GPU" and need < 1:
        return int(have) * int(1 / need + 1e-9) if have >= 1 else int(have / need + 1e-9)
    return math.floor(have / need + 1e-9)


def _why_none_fits(
    machines: Sequence[Machine], need: Mapping[str, float], num_workers: int, workers_per_trial: int
) -> str:
    if num_workers:
        return (
            f"a trial of {workers_per_trial} workers needs {_in_words(need)} for each, but the cluster has "
            f"room for {counted(num_workers, 'worker')}{_largest(machines, need)}; lower "
            "--workers-per-trial or study/placement"
        )
    for name, amount in need.items():
        most = max((machine.get(name, 0.0) for machine in machines), default=0.0)
        if amount and not _slots(name, most, amount):
            return (
                f"a worker needs {amount:.3g} {name} of one machine, but the largest machine has {most:g}; "
                f"lower study/placement/{name.lower()}s_per_worker"
            )
    return (
        f"a worker needs {_in_words(need)} of one machine, but no machine has both"
        f"{_largest(machines, need)}; lower study/placement"
    )


def _in_words(amounts: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:.3g} {name}" for name, amount in amounts.items() if amount)


def _largest(machines: Sequence[Machine], need: Mapping[str, float]) -> str:
    """The machine with most room, and of those the one with most of what is scarcest."""
    scarce = [name for name in ("GPU", "CPU") if need[name]]
    largest = max(
        machines,
        key=lambda m: (_num_workers(m, need), *(m.get(name, 0.0) for name in scarce)),
    )
    has = " and ".join(f"{largest.get(name, 0.0):g} {name}" for name in reversed(scarce))
    return f" (its largest machine has {has})" if len(machines) > 1 else f" (it has {has})"


def machine_resources() -> list[Machine]:
    """What each machine of the cluster has to which Ray is connected."""
    import ray

    return [dict(host["Resources"]) for host in ray.nodes() if host["Alive"]]


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


def local_gpus() -> tuple[int, float]:
    """How many GPUs this machine has, and the memory of the smallest in bytes."""
    import torch

    sizes = [
        torch.cuda.get_device_properties(index).total_memory
        for index in range(torch.cuda.device_count())
    ]
    return len(sizes), float(min(sizes, default=0))
