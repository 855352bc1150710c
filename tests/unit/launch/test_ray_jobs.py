import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.errors import ConfigError, LaunchError, StoppedError
from gerbil_tune.launch import ray_jobs
from gerbil_tune.launch.ray_api import JobsApi
from gerbil_tune.launch.ray_jobs import (
    RayJob,
    check_version,
    follow,
    job_environment,
    new_job_id,
    stop,
)
from tests.unit.launch.test_ray_api import dashboard

arguments = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(arguments, max_size=4), arguments)
def test_any_argument_arrives_as_it_was(command, folder):
    job = RayJob(("search", *command), "/a b/gerbil-tune", Path("/") / folder)
    assert shlex.split(job.entrypoint()) == [
        *("cd", str(job.folder), "&&", "exec"),
        *("/a b/gerbil-tune", "search", *command),
    ]


def test_a_job_runs_in_its_folder_as_one_process(tmp_path):
    folder = tmp_path / "it's a 'lab' ö"
    folder.mkdir()
    job = RayJob(("-c", "echo $$ $PPID; pwd"), "/bin/sh", folder)
    started = subprocess.Popen(job.entrypoint(), shell=True, stdout=subprocess.PIPE, text=True)
    printed, _ = started.communicate(timeout=10)
    pids, where = printed.splitlines()
    assert where == str(folder)
    assert pids.split()[0] == str(started.pid)


def test_what_ray_is_told():
    job = RayJob(("search", "a.yaml"), "/lab/gt", Path("/lab"), 90, {"GERBIL_TUNE_X": "1"})
    assert job.request("j") == {
        "submission_id": "j",
        "entrypoint": "cd /lab && exec /lab/gt search a.yaml",
        "runtime_env": {
            "env_vars": {
                "GERBIL_TUNE_HOME": "/lab",
                "GERBIL_TUNE_X": "1",
                "RAY_JOB_STOP_WAIT_TIME_S": "90",
            }
        },
    }


def test_each_job_has_a_name_of_its_own():
    names = {new_job_id(["search", "x"]) for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith("gerbil-tune-search-") for name in names)


def test_variables_for_a_job():
    assert job_environment(["A=1", "B=x=y"]) == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("A", "valid: NAME=value"),
        ("1A=x", "valid: NAME=value"),
        ("RAY_ADDRESS=x", "variables of Ray are set where the cluster is started"),
        ("MLFLOW_TRACKING_PASSWORD=s3cret", "would show the secret in MLFLOW_TRACKING_PASSWORD"),
        ("AWS_SECRET_ACCESS_KEY=s3cret", "would show the secret in AWS_SECRET_ACCESS_KEY"),
        ("MLFLOW_TRACKING_URI=http://me:s3cret@m", "would show the secret in MLFLOW_TRACKING_URI"),
    ],
)
def test_a_variable_that_a_job_must_not_have_is_refused(pair, said):
    with pytest.raises(ConfigError) as error:
        job_environment([pair])
    assert said in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_cluster_of_another_ray_is_refused():
    with dashboard({"/api/version": (200, {"ray_version": "2.9.0"})}) as (address, _):
        with pytest.raises(LaunchError) as error:
            check_version(JobsApi(address, None))
        assert str(error.value).startswith(
            f"the cluster at {address} runs Ray 2.9.0, and this gerbil-tune needs Ray 2."
        )


def followed(state, log=(200, {"logs": "a\nb\n"})):
    """What following a job in a state prints, and the exit code."""
    printed = []
    with dashboard({"/api/jobs/j": (200, state), "/api/jobs/j/logs": log}) as (address, _):
        return follow(JobsApi(address, None), "j", printed.append, 0.01), "".join(printed)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0),
        ({"status": "FAILED", "driver_exit_code": 2}, 2),
        ({"status": "FAILED", "driver_exit_code": 75}, 75),
        ({"status": "FAILED", "driver_exit_code": -9}, 137),
    ],
)
def test_the_exit_code_is_that_of_the_command(state, code):
    assert followed(state) == (code, "a\nb\n")


def test_a_log_that_is_lost_changes_nothing():
    assert followed({"status": "SUCCEEDED"}, (500, "gone")) == (0, "")


def test_a_stopped_job_can_go_on():
    with pytest.raises(StoppedError) as error:
        followed({"status": "STOPPED"})
    assert error.value.exit_code == 75


def test_why_ray_could_not_run_a_job_is_told():
    with pytest.raises(LaunchError) as error:
        followed({"status": "FAILED", "message": "Failed to start\n  supervisor actor"})
    assert str(error.value) == (
        "Ray could not run job j to its end: Failed to start supervisor actor"
    )


def test_the_log_is_printed_as_it_grows(monkeypatch):
    monkeypatch.setattr(ray_jobs, "_LOG_SHARE", 0)
    answers = {"/api/jobs/j": (200, {"status": "RUNNING"})}
    answers["/api/jobs/j/logs"] = (200, {"logs": "one\n"})
    printed = []

    def write(text):
        printed.append(text)
        if len(printed) == 1:
            answers["/api/jobs/j/logs"] = (200, {"logs": "one\ntwo\n"})
        else:
            answers["/api/jobs/j"] = (200, {"status": "SUCCEEDED"})

    with dashboard(answers) as (address, _):
        assert follow(JobsApi(address, None), "j", write, 0.01) == 0
    assert printed == ["one\n", "two\n"]


def test_a_dashboard_that_is_away_for_a_moment_is_waited_for():
    answers = {
        "/api/jobs/j": (503, ""),
        "/api/jobs/j/logs": (200, {"logs": ""}),
    }
    with dashboard(answers) as (address, asked):
        api = JobsApi(address, None)
        state = api.state

        def later(job_id):
            if len(asked) == 3:
                answers["/api/jobs/j"] = (200, {"status": "SUCCEEDED"})
            return state(job_id)

        api.state = later
        assert follow(api, "j", print, 0.01) == 0
        assert len(asked) >= 4


def test_a_dashboard_that_stays_away_ends_the_following(monkeypatch):
    monkeypatch.setattr(ray_jobs, "_PATIENCE_S", 0.05)
    away = pytest.raises(LaunchError, match="the job j may still run")
    with dashboard({"/api/jobs/j": (503, "")}) as (address, _), away:
        follow(JobsApi(address, None), "j", print, 0.01)


def test_a_stop_waits_for_the_end():
    answers = {"/api/jobs/j/stop": (200, {"stopped": True})}
    answers["/api/jobs/j"] = (200, {"status": "RUNNING"})
    with dashboard(answers) as (address, asked):
        api = JobsApi(address, None)
        assert stop(api, "j", wait=False).status == "RUNNING"
        answers["/api/jobs/j"] = (200, {"status": "STOPPED"})
        assert stop(api, "j", poll_s=0.01).status == "STOPPED"
    assert [path for method, path, *_ in asked if method == "POST"] == ["/api/jobs/j/stop"] * 2


def test_a_job_that_does_not_stop_is_told(monkeypatch):
    monkeypatch.setattr(ray_jobs, "_STOP_MARGIN_S", -2.9)
    answers = {"/api/jobs/j/stop": (200, {}), "/api/jobs/j": (200, {"status": "RUNNING"})}
    late = pytest.raises(LaunchError, match="job j is still RUNNING")
    with dashboard(answers) as (address, _), late:
        stop(JobsApi(address, None), "j", poll_s=0.02)
