"""``gerbil-tune submit``: run the same command line on a cluster."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.errors import ConfigError

if TYPE_CHECKING:
    from gerbil_tune.launch.ray_api import JobsApi

EXIT_INTERRUPTED = 130
_ADDRESS = "http://127.0.0.1:8265"

app = typer.Typer(
    help="Run a command on a cluster: gerbil-tune submit slurm --gpus-per-node 1 -- search SPACE.yaml"
    " --data D",
    no_args_is_help=True,
)
Command = Annotated[
    list[str],
    typer.Argument(metavar="-- COMMAND...", help="search, train or predict with its options."),
]
PerhapsCommand = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- COMMAND...",
        help="search, train or predict with its options; none with --follow and --stop.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted, and stop.")]


@app.command("slurm")
def slurm(
    context: typer.Context,
    command: Command,
    nodes: Annotated[int, typer.Option(min=1, help="Compute nodes.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs on each node.")] = 0,
    cpus_per_task: Annotated[int, typer.Option(min=1, help="CPUs on each node.")] = 8,
    memory: Annotated[
        str | None, typer.Option("--mem", help="Of each node, such as 64G; default: the cluster's.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Limit of each turn, such as 24:00:00; default: SBATCH_TIMELIMIT, else the partition's."
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="Default: SBATCH_PARTITION, else the cluster's.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Default: SBATCH_ACCOUNT, else the cluster's.")
    ] = None,
    qos: Annotated[
        str | None, typer.Option(help="Default: SBATCH_QOS, else the cluster's.")
    ] = None,
    job_name: Annotated[str, typer.Option(help="Shown by squeue.")] = "gerbil-tune",
    output: Annotated[
        str, typer.Option(metavar="PATTERN", help="Name of the log, in sbatch's pattern.")
    ] = "%x-%j.log",
    sbatch_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="name=value",
            help="Any other option of sbatch, e.g. constraint=a100 or exclusive; repeatable.",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Submit to SLURM, on one compute node or many; out of time or preempted, it requeues itself and goes on.

    Defaults of a site are read from site.env (see cluster/site.env.example).
    """
    from gerbil_tune.launch.sbatch import SlurmResources, sbatch_command
    from gerbil_tune.launch.scripts import own_program, scripts_dir
    from gerbil_tune.launch.slurm_jobs import next_steps, site_defaults, submit_sbatch

    scripts = scripts_dir()
    site = site_defaults(scripts, os.environ)
    resources = SlurmResources(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_task=cpus_per_task,
        memory=memory,
        time=time,
        partition=partition,
        account=account,
        qos=qos,
        job_name=job_name,
        output=output,
        options=tuple(sbatch_option or ()),
    )
    line = sbatch_command(resources, _checked(context, command), scripts, own_program(), site)
    if dry_run:
        typer.echo(line.shell_line())
    else:
        typer.echo(next_steps(resources, submit_sbatch(line)))


@app.command("ray")
def ray(
    context: typer.Context,
    command: PerhapsCommand = None,
    address: Annotated[
        str,
        typer.Option(
            help="The cluster's dashboard.", metavar="URL", envvar="RAY_API_SERVER_ADDRESS"
        ),
    ] = _ADDRESS,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once, without following the log.")
    ] = False,
    stop_wait: Annotated[
        int,
        typer.Option(
            min=1, metavar="SECONDS", help="Time to save, between a stop and the kill of the job."
        ),
    ] = 120,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=value",
            help="Variable for the job, e.g. MLFLOW_TRACKING_URI=http://mlflow:5000; repeatable; no"
            " secrets, as the dashboard shows them.",
        ),
    ] = None,
    follow: Annotated[
        str | None, typer.Option(metavar="JOB", help="Follow a job that was submitted before.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(metavar="JOB", help="Let a job save and stop.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Submit to a standing Ray cluster, follow the log, and end with the command's exit code.

    The job runs in the current folder, which all machines must reach at the same path, as the data and
    this program. The token is found as Ray finds it: RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token.
    """
    from gerbil_tune.launch.addresses import dashboard_url
    from gerbil_tune.launch.ray_api import JobsApi, read_token

    if [bool(command), follow is not None, stop is not None].count(True) != 1:
        raise ConfigError(
            "submit ray takes one of: a command after --, --follow JOB, or --stop JOB"
        )
    api = JobsApi(dashboard_url(address), read_token(os.environ))
    if follow is not None:
        _follow(api, follow)
    elif stop is not None:
        _stop(api, stop, wait=not no_wait)
    else:
        _submit(api, _checked(context, command or []), stop_wait, env or [], no_wait, dry_run)


def _submit(
    api: "JobsApi",
    command: list[str],
    stop_wait_s: int,
    pairs: list[str],
    no_wait: bool,
    dry_run: bool,
) -> None:
    from gerbil_tune.launch.ray_jobs import RayJob, check_version, job_environment, new_job_id
    from gerbil_tune.launch.scripts import own_program

    job = RayJob(tuple(command), own_program(), Path.cwd(), stop_wait_s, job_environment(pairs))
    job_id = new_job_id(command)
    if dry_run:
        import json

        typer.echo(f"POST {api.address}/api/jobs/")
        typer.echo(json.dumps(job.request(job_id), indent=2, ensure_ascii=False))
        return
    check_version(api)
    job_id = api.submit(job.request(job_id))
    told = f"submitted job {job_id} to {api.address}\n{_next_steps(api, job_id)}"
    if no_wait:
        typer.echo(told, err=True)
    else:
        _follow(api, job_id, told)


def _follow(api: "JobsApi", job_id: str, told_first: str = "") -> None:
    from gerbil_tune.launch.ray_jobs import follow

    try:
        if told_first:
            typer.echo(told_first, err=True)
        code = follow(api, job_id, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"job {job_id} goes on\n{_next_steps(api, job_id)}", err=True)
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def _stop(api: "JobsApi", job_id: str, wait: bool) -> None:
    from gerbil_tune.launch.ray_jobs import stop

    state = stop(api, job_id, wait=wait)
    if state.is_over:
        typer.echo(f"job {job_id}: {state.status.lower()}")
    else:
        typer.echo(f"job {job_id} was asked to stop")


def _next_steps(api: "JobsApi", job_id: str) -> str:
    where = "" if api.address == _ADDRESS else f" --address {api.address}"
    return (
        f"  follow it:   gerbil-tune submit ray{where} --follow {job_id}\n"
        f"  stop it:     gerbil-tune submit ray{where} --stop {job_id}\n"
        "  go on later: the same command once more"
    )


def _checked(context: typer.Context, command: list[str]) -> list[str]:
    """Refuse what would only fail in the job; ``gerbil-tune`` itself may be in front."""
    words = command[1:] if command[0] == "gerbil-tune" else command
    known = [*getattr(context.find_root().command, "commands", {})]
    known.remove("submit")
    if not words or words[0] not in known:
        received = repr(words[0]) if words else "nothing"
        raise ConfigError(
            f"the command to run must begin with a command of gerbil-tune; received {received}, valid: "
            f"{', '.join(known)}"
        )
    return words
