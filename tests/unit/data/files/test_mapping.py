"""Arrays on a part of a file."""

import numpy as np
import pytest

from gerbil_tune.data.files.mapping import AudioMapping

VALUES = np.arange(40_000, dtype=np.int16).reshape(-1, 4)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "audio"
    path.write_bytes(b"12345" + VALUES.tobytes())
    return path


def test_the_array_is_the_file(path):
    mapping = AudioMapping(path, VALUES.dtype, VALUES.shape, 5)
    np.testing.assert_array_equal(mapping.audio, VALUES)
    assert not mapping.audio.flags.writeable
    path.unlink()  # what is mapped stays
    np.testing.assert_array_equal(mapping.audio, VALUES)


@pytest.mark.parametrize("part", [(0, 1), (0, 0), (9_999, 1), (5_000, 5_000), (3, 2_000)])
def test_any_part_can_be_announced(path, part):
    mapping = AudioMapping(path, VALUES.dtype, VALUES.shape, 5)
    mapping.will_need(*part)
    np.testing.assert_array_equal(mapping.audio, VALUES)


def test_a_file_that_is_too_short_is_refused(path):
    with pytest.raises(ValueError, match="length"):
        AudioMapping(path, VALUES.dtype, (10_001, 4), 5)
