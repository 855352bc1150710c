"""Whether a proposal keeps the study's limits, before it costs anything."""

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.config.study import ConstraintsConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import model_cost


def violations(
    config: ExperimentConfig,
    setup: RecordingSetup,
    constraints: ConstraintsConfig,
    num_workers: int = 1,
) -> tuple[list[float], str]:
    """Compare a configuration's cost with the limits.

    Args:
        config: The proposal.
        setup: The recording site.
        constraints: The limits.
        num_workers: Workers that share its batch.

    Returns:
        For each limit that is set, in the order of the config, how far it is exceeded as a part of it (0 or
        below: it is kept), as Optuna wants constraints; and a clause that names what is exceeded, empty if
        nothing is.
    """
    limits = constraints.model_dump(exclude_none=True)
    if not limits:
        return [], ""
    cost = model_cost(config, setup, num_workers)
    found: dict[str, tuple[float, str]] = {
        "max_parameters": (cost.parameters, "parameters"),
        "max_gflop_per_event": (cost.gflop_per_event, "GFLOP an event"),
        "max_memory_gb": (cost.training_bytes / 1e9, "GB of memory"),
    }
    values, exceeded = [], []
    for name, limit in limits.items():
        amount, unit = found[name]
        values.append(amount / limit - 1.0)
        if amount > limit:
            exceeded.append(f"{amount:,.6g} {unit}, above study/constraints/{name} {limit:,.6g}")
    return values, "it takes " + " and ".join(exceeded) if exceeded else ""
