"""The command line: the only place that puts the layers together.

Handlers import the work inside themselves, so that ``--help`` and config checks need no heavy library.
"""


def main() -> None:
    """Run ``gerbil-tune``."""
    from gerbil_tune.cli.app import run

    run()
