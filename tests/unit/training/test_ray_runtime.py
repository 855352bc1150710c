"""What is decided before Ray starts."""

import json
import os
import stat

import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.training import ray_runtime


@pytest.fixture
def token(tmp_path, monkeypatch):
    path = tmp_path / "private" / "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    return path


def test_a_token_is_made_once_and_for_its_owner_alone(token):
    before = os.umask(0)
    try:
        ray_runtime._make_token()
    finally:
        os.umask(before)
    made = token.read_text()
    assert len(bytes.fromhex(made)) == 32
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    ray_runtime._make_token()
    assert token.read_text() == made


def test_a_token_of_the_environment_is_not_handed_on(token, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    ray_runtime._make_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert token.read_text() != "secret"


def test_no_token_where_none_is_asked_for(token, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray_runtime._make_token()
    assert not token.exists()


def test_a_token_that_cannot_be_written(token):
    token.parent.write_text("a file")
    with pytest.raises(LaunchError, match="let RAY_AUTH_TOKEN_PATH name another file"):
        ray_runtime._make_token()


def test_a_readable_token_is_closed(token):
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o644)
    ray_runtime._protect_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_workers_are_told_what_the_job_does_not_say(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    told = ray_runtime._worker_environment("10.0.0.1:6379")
    assert told["RAY_AUTH_MODE"] == "token"
    assert told["RAY_ADDRESS"] == "10.0.0.1:6379"
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert ray_runtime._not_of_the_job(told) == told
    job = {"runtime_env": {"env_vars": {"RAY_AUTH_MODE": "token"}}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert set(told) - set(ray_runtime._not_of_the_job(told)) == {"RAY_AUTH_MODE"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": null}')
    assert ray_runtime._not_of_the_job(told) == told


def test_only_the_instance_begun_meanwhile_is_on_the_loopback(monkeypatch):
    from ray._private import ray_constants, services

    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    before = ray_constants.ENABLE_RAY_CLUSTER
    with ray_runtime._loopback_only():
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert services.get_node_ip_address() == "127.0.0.1"
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    assert before == ray_constants.ENABLE_RAY_CLUSTER


def test_what_only_the_driver_needs_is_not_inherited(monkeypatch):
    monkeypatch.setenv("GERBIL_TUNE_STORAGE", "postgresql://lab:secret@host/db")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.delenv("PGPASSWORD", raising=False)
    before = dict(os.environ)
    with ray_runtime._secrets_not_inherited():
        assert "secret" not in "".join(os.environ.values())
    assert dict(os.environ) == before
