"""``gerbil-tune data``: look at data, check, clean, split and shard it before training on it."""

import typer

from gerbil_tune.cli.data.check import check
from gerbil_tune.cli.data.clean import clean
from gerbil_tune.cli.data.shard import shard
from gerbil_tune.cli.data.show import show
from gerbil_tune.cli.data.split import split

app = typer.Typer(help="Look at data, check, clean, split and shard it.", no_args_is_help=True)
app.command("check")(check)
app.command("show")(show)
app.command("clean")(clean)
app.command("split")(split)
app.command("shard")(shard)
