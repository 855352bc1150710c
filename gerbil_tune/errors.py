"""The errors a user can cause.

    GerbilTuneError
    ├── ConfigError          a config, space or option is wrong        exit 2
    ├── DatasetError         a data file is wrong                      exit 2
    ├── ModelNotFoundError   a model reference leads nowhere           exit 2
    ├── LaunchError          a cluster cannot do what is asked         exit 1
    ├── NonFiniteLossError   training diverged                         exit 1
    └── StoppedError         stopped on request, and can go on         exit 75

Each takes one argument, the message: what rule broke, where, what was received, what is valid and
what to do. Errors cross process boundaries, so a constructor with more arguments would not unpickle.
"""


class GerbilTuneError(Exception):
    """Base of all errors that are shown as one sentence instead of a traceback."""

    exit_code = 1


class ConfigError(GerbilTuneError, ValueError):
    """A config file, a search space or an option breaks a rule."""

    exit_code = 2


class DatasetError(GerbilTuneError, ValueError):
    """A data file cannot be used as it is."""

    exit_code = 2


class ModelNotFoundError(GerbilTuneError, LookupError):
    """A model reference names nothing that exists."""

    exit_code = 2


class LaunchError(GerbilTuneError, RuntimeError):
    """The cluster cannot do what was asked of it."""


class NonFiniteLossError(GerbilTuneError, ArithmeticError):
    """Training produced a NaN or an infinite value."""


class StoppedError(GerbilTuneError):
    """Work was stopped on request after its state was saved; the same command goes on."""

    exit_code = 75
