"""``gerbil-tune data check`` names each fault of malformed data, and has nothing to say of good data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gerbil_tune.cli.app import app, run
from tests.contracts.data_folder import Folder
from tests.contracts.good_data import GOOD
from tests.contracts.malformed_data import CASES, audio_with_nan, clipped_floats
from tests.integration.command_line import clean_environment


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def checked(capsys, monkeypatch, tmp_path):
    """Run the command in this process; return exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def check(*arguments):
        words = ["data", "check", *map(str, arguments)]
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: app(words, prog_name="gerbil-tune"))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        told = [line for line in printed.err.splitlines() if not line.startswith("packing ")]
        return ended.value.code, printed.out, "\n".join(told)

    return check


def as_list(built):
    return built if isinstance(built, list) else [built]


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named(folder, checked, name):
    case = CASES[name]
    if name == "a_file_without_read_permission" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    arguments = as_list(case.build(folder))
    exit_code, printed, told = checked(*arguments, "--json")
    report = json.loads(printed)
    found = {finding["code"]: finding for finding in report["findings"]}
    assert set(found) == {case.code, *case.others}, report["findings"]
    assert exit_code == case.exit_code
    level = "error" if case.exit_code and case.code not in case.others else "warning"
    assert found[case.code]["level"] == level
    message = found[case.code]["message"]
    assert "\n" not in message
    for word in case.words:
        assert word in message
    assert found[case.code]["count"] >= 1
    assert len(told.splitlines()) == (1 if exit_code else 0)

    exit_code, printed, told = checked(*arguments)
    assert exit_code == case.exit_code
    assert message in printed + told
    assert len(told.splitlines()) == (1 if exit_code else 0)


def test_the_table_is_long_enough():
    assert len(CASES) >= 45


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("how", [(), ("--quick",)], ids=["full", "quick"])
def test_good_data_raise_no_alarm(folder, checked, name, how):
    arguments = as_list(GOOD[name](folder))
    exit_code, printed, told = checked(*arguments, *how, "--json")
    report = json.loads(printed)
    assert report["findings"] == []
    assert (exit_code, report["usable"], told) == (0, True, "")
    exit_code, printed, _ = checked(*arguments, *how)
    assert exit_code == 0
    assert "no problem found; next: gerbil-tune " in printed


def test_a_broken_file_hides_nothing_of_the_others(folder, checked):
    audio = folder.noise()
    audio[3, 5, 0] = np.nan
    (folder / "notes.h5").write_text("no")
    paths = [folder / "none.h5", folder.spoilt(audio, "b.h5"), folder / "notes.h5"]
    exit_code, printed, told = checked(*paths)
    assert exit_code == 2
    assert "none.h5: does not exist" in printed
    assert "notes.h5: cannot be opened as HDF5" in printed
    assert "event 3 of b.h5" in printed
    assert told.startswith("error: not usable as it is: 3 errors, 0 warnings; next: mend what")
    _, _, told = checked(paths[1], "--set", "data/arena_mm=[572, 356]")
    assert told.endswith(f"data clean {paths[1]} --set 'data/arena_mm=[572, 356]'")


def test_the_summary(folder, checked):
    for number, name in enumerate(("train_set", "val_set")):
        folder.file(f"parts/{name}.h5", groups=np.arange(20) // 5 + 10 * number, seed=number)
    _, printed, _ = checked(folder / "parts")
    lines = [line.split(maxsplit=1) for line in printed.splitlines() if line]
    facts = {words[0]: words[-1] for words in lines}
    assert facts["microphones"] == "4"
    assert facts["sample"] == "rate   125000 Hz"
    assert facts["arena"] == "572 x 356 mm"
    assert facts["layout"] == "gerbilizer"
    assert facts["storage"] == "float32, contiguous"
    # 300 samples at 125 kHz are 2.4 ms
    assert facts["events"] == "40 in 0.1 s: 2.4 to 2.4 ms, median 2.4 ms, 8 groups"
    assert facts["val_set"] == "20 in 0.0 s: 2.4 to 2.4 ms, median 2.4 ms, 4 groups"
    assert printed.splitlines()[-1].endswith(
        f"gerbil-tune search SPACE.yaml --data {folder / 'parts'}"
    )


def test_json_has_one_file_one_set_and_no_nan(folder, checked):
    _, printed, _ = checked(folder.file(sample_rate_hz=None), "--json")
    report = json.loads(printed, parse_constant=lambda word: pytest.fail(word))
    assert (report["version"], report["full"], report["errors"]) == (1, True, 1)
    assert [one["name"] for one in report["sets"]] == ["all"]
    file = report["files"][0]
    assert (file["events"], file["samples"], file["microphones"]) == (20, 6000, 4)
    assert file["seconds"] is file["sample_rate_hz"] is file["median_ms"] is None
    assert (file["dtype"], file["storage"], file["labelled"]) == ("float32", "contiguous", True)
    assert file["size_bytes"] == Path(file["path"]).stat().st_size


def test_quick_reads_64_events_of_many(folder, checked):
    audio = folder.noise(200)
    audio[1, 5, 0] = np.nan  # the 64 that are read are three apart
    path = folder.spoilt(audio)
    assert checked(path, "--quick")[0] == 0
    assert checked(path)[0] == 2


@pytest.mark.parametrize(("code", "build"), [(2, audio_with_nan), (0, clipped_floats)])
def test_as_a_user_runs_it(folder, code, build):
    done = subprocess.run(
        [sys.executable, "-m", "gerbil_tune", "data", "check", build(folder)],
        cwd=folder.path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "of 20 events (first: event " in done.stdout
    verdict = done.stderr if code else done.stdout.splitlines()[-1]
    assert "gerbil-tune data clean" in verdict
