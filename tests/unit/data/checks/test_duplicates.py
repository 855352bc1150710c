import numpy as np
import pytest

from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.duplicates import check_duplicates, find_duplicates
from gerbil_tune.data.events import open_events


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(-9000, 9000, (20, 300, 4)).astype(np.float64)


@pytest.fixture
def scanned(make_event_file):
    def scan(*parts, dtypes=("float32",) * 3):
        paths = [
            make_event_file(
                f"{name}.h5", lengths=[300] * len(audio), audio=audio.reshape(-1, 4), dtype=dtype
            )
            for name, audio, dtype in zip("abc", parts, dtypes, strict=False)
        ]
        return scan_audio(open_events(paths))

    return scan


def test_groups_of_equal_events(scanned, noise):
    noise[7] = noise[11] = noise[2]
    noise[19] = noise[0]
    scan = scanned(noise)
    assert [group.tolist() for group in find_duplicates(scan)] == [[0, 19], [2, 7, 11]]
    (finding,) = check_duplicates(scan)
    assert (finding.level, finding.count) == ("warning", 3)
    assert finding.examples[1] == "event 2 of a.h5 and event 7 of a.h5"


def test_what_is_almost_equal_or_silent_is_no_duplicate(scanned, noise):
    noise[3] = noise[2]
    noise[3, 299, 3] += 1
    noise[5] = noise[4][:, ::-1]  # microphones exchanged
    noise[7] = noise[6][::-1]  # backwards
    noise[8] = noise[9] = 0
    assert check_duplicates(scanned(noise)) == []


def test_keys_alone_are_not_believed(scanned, noise):
    scan = scanned(noise)
    scan.keys_N[:] = 1
    assert find_duplicates(scan) == []


def test_files_of_other_types(scanned, noise):
    other = np.random.default_rng(1).integers(-9000, 9000, noise.shape).astype(np.float64)
    other[4] = noise[17]
    scan = scanned(noise, other, dtypes=("int16", "int32"))
    assert [group.tolist() for group in find_duplicates(scan)] == [[17, 24]]


def test_parts_that_share_audio_are_named(scanned, noise):
    noise[15] = noise[1]
    noise[16] = noise[2]
    noise[4] = noise[3]
    places = np.arange(20)
    parts = {"train_set": places < 10, "val_set": places == 15, "test_set": places > 15}
    findings = check_duplicates(scanned(noise), parts)
    assert [(finding.level, finding.code, finding.count) for finding in findings] == [
        ("error", "leaked-events", 1),
        ("error", "leaked-events", 1),
        ("warning", "duplicate-events", 3),
    ]
    assert "in train_set and in val_set" in findings[0].message
    assert findings[0].examples == ("event 1 of a.h5 and event 15 of a.h5",)
    assert "in train_set and in test_set" in findings[1].message
