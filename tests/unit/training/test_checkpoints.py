"""What becomes of checkpoints that something has damaged, and how a run begins with another's."""

import json
import shutil
import threading
import zlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from gerbil_tune.errors import DatasetError
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.training.checkpoints import (
    CHECKPOINTS,
    copy_newest,
    newest_place,
    whole_checkpoints,
)
from gerbil_tune.training.history import HISTORY
from gerbil_tune.training.loop import begin

QUICK = {"epochs": 4, "global_batch_size": 80}


class KilledError(Exception):
    """In place of a signal."""


def train_until(run_job, job, epoch):
    def on_report(metrics):
        if metrics["epoch"] == epoch:
            raise KilledError

    with pytest.raises(KilledError):
        run_job(job, on_report)


@pytest.fixture
def begun(make_job, run_job):
    """Factory of runs that were killed after three of four epochs, with checkpoints of two and three."""

    def make(name="run", **sections):
        job = make_job(name, training=QUICK, **sections)
        train_until(run_job, job, 3)
        return job

    return make


def folder_of(job, epoch=3):
    return job.run_dir / CHECKPOINTS / f"epoch-{epoch:05d}"


def rewrite(folder, tensors=lambda tensors: tensors, content=lambda content: content):
    """Change a checkpoint and give it the right checksum again."""
    path = folder / "state.safetensors"
    save_file(tensors(load_file(path)), path)
    state = content(json.loads((folder / "state.json").read_text()))
    state["crc32"] = zlib.crc32(path.read_bytes())
    (folder / "state.json").write_text(json.dumps(state))


def cut(name, keep):
    def damage(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])

    return damage


def remove(name):
    return lambda folder: (folder / name).unlink()


def flip(part):
    """Turn one bit over, a part of the way into the tensors."""

    def damage(folder):
        path = folder / "state.safetensors"
        content = bytearray(path.read_bytes())
        content[int(part * (len(content) - 1))] ^= 1
        path.write_bytes(content)

    return damage


def change_json(change):
    def damage(folder):
        path = folder / "state.json"
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))

    return damage


def other_shapes(part):
    def damaged(tensors):
        return {
            name: torch.zeros(3, 2) if name.startswith(part) and tensor.ndim else tensor
            for name, tensor in tensors.items()
        }

    return lambda folder: rewrite(folder, damaged)


def without(part):
    return lambda folder: rewrite(
        folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith(part)}
    )


DAMAGES = {
    "no json": remove("state.json"),
    "no tensors": remove("state.safetensors"),
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "empty json": cut("state.json", 0),
    "empty tensors": cut("state.safetensors", 0),
    "half a json": cut("state.json", 0.5),
    "header of the tensors": cut("state.safetensors", 0.01),
    "nearly all tensors": cut("state.safetensors", 0.999),
    "json of zeros": lambda folder: (folder / "state.json").write_bytes(b"\0" * 500),
    "no text": lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe\x80"),
    "another json": lambda folder: (folder / "state.json").write_text("[1, 2]"),
    "epoch is no number": change_json(lambda state: state["progress"].update(epoch="x")),
    "no progress": change_json(lambda state: state.pop("progress")),
    "no groups": change_json(lambda state: state["optimizer"].clear()),
    "fewer groups": change_json(lambda state: state["optimizer"]["param_groups"].pop()),
    "groups of nonsense": change_json(lambda state: state.update(optimizer={"param_groups": [1]})),
    "a bit of the header": flip(0.0005),
    "a bit of the weights": flip(0.5),
    "the last bit": flip(1.0),
    "weights of another model": other_shapes("model/"),
    "best weights of another model": other_shapes("best/"),
    "moments of another model": other_shapes("optimizer/"),
    "random state of another torch": other_shapes("random/"),
    "no weights": without("model/"),
    "no best weights": without("best/"),
    "no random state": without("random/"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_falls_back_to_the_one_before(begun, damage):
    job = begun()
    damage(folder_of(job))
    state = begin(Localizer(job.config, job.setup), job)
    assert state.load_newest(job.run_dir)
    assert state.progress.epoch == 2


def test_the_run_then_goes_on_and_keeps_whole_ones(begun, run_job):
    job = begun()
    DAMAGES["a bit of the weights"](folder_of(job))
    DAMAGES["no json"](folder_of(job, 2))
    assert newest_place(job.run_dir) is None
    reports = run_job(job)
    assert [report["epoch"] for report in reports] == [1, 2, 3, 4]
    assert [c.progress.epoch for c in whole_checkpoints(job.run_dir)] == [4, 3]


def test_nothing_of_a_checkpoint_that_does_not_fit_is_taken(begun, make_job):
    """Else the weights of one model would begin with parts of another's."""
    job = begun()
    for epoch in (2, 3):
        DAMAGES["moments of another model"](folder_of(job, epoch))
    torch.manual_seed(3)
    state = begin(Localizer(job.config, job.setup), job)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    assert not state.load_newest(job.run_dir)
    assert all(torch.equal(before[name], v) for name, v in state.model.state_dict().items())
    assert state.progress.epoch == 0


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(begun, monkeypatch):
    """A machine that reboots leaves what was synchronized: both files and their names, then the folder's."""
    import os
    from pathlib import Path

    done = []
    sync, rename = os.fsync, Path.rename

    def noted_sync(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def noted_rename(path, target):
        done.append(f"rename to {target.name}")
        return rename(path, target)

    job = begun()
    state = begin(Localizer(job.config, job.setup), job)
    assert state.load_newest(job.run_dir)
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    state.save(job.run_dir)
    files = ["state.safetensors", "state.json", ".partial"]
    assert done == [*files, "rename to epoch-00003", "checkpoints"]


class TestCopy:
    def test_the_copy_ends_as_the_original(self, begun, make_job, run_job):
        job, copy = begun(), make_job("copy", training=QUICK)
        assert copy_newest(job.run_dir, copy.run_dir) == 3
        reports = [
            [{k: v for k, v in report.items() if not k.startswith("best")} for report in run_job(j)]
            for j in (copy, job)
        ]
        assert reports[0] == reports[1]
        for name in ("init", "final"):
            first, second = (
                load_file(j.run_dir / f"{name}_weights.safetensors") for j in (job, copy)
            )
            assert all(torch.equal(first[key], second[key]) for key in first)
        lines = [(j.run_dir / HISTORY).read_text().splitlines() for j in (job, copy)]
        assert lines[0][:3] == lines[1][:3]
        assert len(lines[0]) == len(lines[1]) == 4

    def test_another_learning_rate_counts_from_there(self, begun, make_job, run_job):
        """As population based training changes it."""
        job = begun()
        copy = make_job("copy", training=QUICK, optimizer={"learning_rate": 1e-4})
        copy_newest(job.run_dir, copy.run_dir)
        again, last = run_job(copy)
        assert again["epoch"] == 3
        assert last["learning_rate"] < 1e-4
        assert last["best_value"] == last["val_error_median_mm"]  # of its own epochs alone

    @pytest.mark.parametrize("epoch", [0, 3])
    def test_settings_are_those_of_the_copy(self, begun, make_job, epoch):
        job = begun()
        changed = {"learning_rate": 1e-4, "weight_decay": 0.5, "betas": [0.8, 0.9]}
        copy = make_job("copy", training=QUICK, optimizer=changed)
        if epoch:
            copy_newest(job.run_dir, copy.run_dir)
        state = begin(Localizer(copy.config, copy.setup), copy)
        assert state.load_newest(copy.run_dir) == bool(epoch)
        groups = state.optimizer.param_groups
        assert [group["betas"] for group in groups] == [(0.8, 0.9)] * 2
        assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
        moments = state.optimizer.state_dict()["state"]
        assert len(moments) == (len(list(state.model.parameters())) if epoch else 0)

    def test_a_copy_is_made_once(self, begun, make_job, run_job):
        job, copy = begun(), make_job("copy", training=QUICK)
        copy_newest(job.run_dir, copy.run_dir)
        run_job(copy)
        assert copy_newest(job.run_dir, copy.run_dir) == 4

    def test_a_damaged_checkpoint_is_not_copied(self, begun, make_job):
        job, copy = begun(), make_job("copy", training=QUICK)
        DAMAGES["a bit of the weights"](folder_of(job))
        assert copy_newest(job.run_dir, copy.run_dir) == 2
        assert len((copy.run_dir / HISTORY).read_text().splitlines()) == 2

    def test_without_a_checkpoint_there_is_nothing_to_copy(self, tmp_path):
        with pytest.raises(DatasetError, match="has no readable checkpoint"):
            copy_newest(tmp_path / "from", tmp_path / "to")

    def test_the_other_run_may_go_on_writing(self, begun, make_job):
        job = begun()
        state = begin(Localizer(job.config, job.setup), job)
        state.load_newest(job.run_dir)
        finished = threading.Event()

        def write():
            while not finished.is_set():
                state.progress.partial.step += 1
                state.save(job.run_dir)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(20):
                to = job.run_dir.parent / f"copy-{number}"
                assert copy_newest(job.run_dir, to) == 3
                assert newest_place(to) is not None
                shutil.rmtree(to)
        finally:
            finished.set()
            writer.join()
