"""``gerbil-tune submit``: run the same command line on a cluster."""

from typing import Annotated

import typer

app = typer.Typer(
    help="Run a command on a cluster: gerbil-tune submit slurm --gpus 1 -- search SPACE.yaml --data D",
    no_args_is_help=True,
)
Command = Annotated[
    list[str],
    typer.Argument(metavar="-- COMMAND...", help="search, train or predict with its options."),
]


@app.command("slurm")
def slurm(
    command: Command,
    time: Annotated[str, typer.Option(help="SLURM time limit.")] = "24:00:00",
    cpus: Annotated[int, typer.Option(min=1, help="CPUs on the compute node.")] = 8,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs on the compute node.")] = 0,
    memory: Annotated[str | None, typer.Option(help="Such as 64G; default: the cluster's.")] = None,
    partition: Annotated[str | None, typer.Option(help="Default: the cluster's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script and stop.")] = False,
) -> None:
    """Submit to SLURM on one compute node; preempted or out of time, it requeues itself and goes on."""
    from gerbil_tune.launch.jobs import own_program, submit_sbatch
    from gerbil_tune.launch.sbatch import SlurmResources, render_sbatch

    resources = SlurmResources(time, cpus, gpus, memory, partition)
    script = render_sbatch(command, resources, program=own_program())
    if dry_run:
        typer.echo(script, nl=False)
        return
    typer.echo(f"submitted job {submit_sbatch(script)}; follow it with: squeue --me")


@app.command("ray")
def ray(
    command: Command,
    address: Annotated[
        str, typer.Option(help="The cluster's dashboard.", metavar="URL")
    ] = "http://127.0.0.1:8265",
) -> None:
    """Submit to a standing Ray cluster; data paths must be readable by its machines."""
    from gerbil_tune.launch.jobs import submit_ray_job

    raise typer.Exit(submit_ray_job(command, address=address))
