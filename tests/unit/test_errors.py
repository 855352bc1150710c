import pickle

import pytest

from gerbil_tune import errors

EXIT_CODES = {
    "GerbilTuneError": 1,
    "ConfigError": 2,
    "DatasetError": 2,
    "ModelNotFoundError": 2,
    "LaunchError": 1,
    "NonFiniteLossError": 1,
    "StoppedError": 75,
}


def test_every_error_has_an_exit_code():
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert found == EXIT_CODES


@pytest.mark.parametrize("name", EXIT_CODES)
def test_an_error_crosses_process_boundaries(name):
    error = getattr(errors, name)("file.h5: the dataset 'audio' is missing; valid: ...")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.exit_code == error.exit_code


@pytest.mark.parametrize("name", EXIT_CODES)
def test_one_except_clause_catches_them_all(name):
    with pytest.raises(errors.GerbilTuneError):
        raise getattr(errors, name)("a sentence")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("DatasetError", ValueError),
        ("ModelNotFoundError", LookupError),
        ("LaunchError", RuntimeError),
        ("NonFiniteLossError", ArithmeticError),
    ],
)
def test_errors_are_the_builtin_ones_that_a_caller_expects(name, builtin):
    assert issubclass(getattr(errors, name), builtin)
