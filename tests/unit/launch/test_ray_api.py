import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.launch.addresses import dashboard_url, is_loopback
from gerbil_tune.launch.ray_api import JobsApi, JobState, UnreachableError, read_token


@contextmanager
def dashboard(answers, port=0):
    """An HTTP server with answers by path: (code, text or data); it notes what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(
                (self.command, self.path, self.headers.get("Authorization"), body.decode())
            )
            code, content, *headers = answers.get(self.path, (404, "404: Not Found"))
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_response(code)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusal(code, text, *headers):
    with dashboard({"/api/jobs/j": (code, text, *headers)}) as (address, _):
        with pytest.raises(LaunchError) as error:
            JobsApi(address, "t").state("j")
        return error.value, str(error.value).replace(address, "URL")


def test_a_job_is_submitted_with_the_token_in_a_header_only():
    with dashboard({"/api/jobs/": (200, {"submission_id": "j1"})}) as (address, asked):
        assert JobsApi(address, "s3cret").submit({"entrypoint": "x"}) == "j1"
    assert asked == [("POST", "/api/jobs/", "Bearer s3cret", '{"entrypoint": "x"}')]


def test_without_a_token_none_is_sent():
    with dashboard({"/api/version": (200, {"ray_version": "2.60.0"})}) as (address, asked):
        assert JobsApi(address, None).ray_version() == "2.60.0"
    assert asked == [("GET", "/api/version", None, "")]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"status": "RUNNING"}, JobState("RUNNING", "", None, 3)),
        (
            {
                "status": "FAILED",
                "message": "no",
                "driver_exit_code": 2,
                "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}},
            },
            JobState("FAILED", "no", 2, 120),
        ),
    ],
)
def test_the_state_of_a_job(answer, state):
    with dashboard({"/api/jobs/a%2Fb": (200, answer)}) as (address, _):
        assert JobsApi(address, None).state("a/b") == state


def test_an_answer_that_is_no_refusal_of_the_token_names_the_cause():
    _, said = refusal(401, "Unauthorized: Missing authentication token")
    assert said == (
        "the Ray cluster at URL asks for a token (HTTP 401); set RAY_AUTH_TOKEN_PATH to a file with the "
        "token that the cluster was started with, or put it into ~/.ray/auth_token"
    )
    _, said = refusal(403, "Forbidden: Invalid authentication token")
    assert said.startswith(
        "the Ray cluster at URL refuses the token that was sent (HTTP 403); set "
    )


def test_a_job_that_is_unknown_is_named():
    _, said = refusal(404, "Job j does not exist")
    assert said == "the Ray cluster at URL has no job j"


def test_a_traceback_of_the_dashboard_is_cut_to_its_last_line():
    _, said = refusal(500, "Traceback (most recent call last):\n  File\nValueError: bad\n")
    assert said == "the Ray dashboard at URL answers /api/jobs/j with HTTP 500: ValueError: bad"


def test_a_gateway_without_a_dashboard_may_have_one_later():
    error, _ = refusal(503, "")
    assert isinstance(error, UnreachableError)


def test_a_redirect_does_not_take_the_token_away():
    with dashboard({}) as (elsewhere, asked):
        _, said = refusal(302, "", ("Location", f"{elsewhere}/api/jobs/j"))
    assert asked == []
    assert "HTTP 302" in said


@pytest.mark.parametrize("answer", ["<html>", "[1]", '{"version": 4}'])
def test_what_is_no_dashboard_is_told(answer):
    with dashboard({"/api/version": (200, answer)}) as (address, _):
        with pytest.raises(LaunchError) as error:
            JobsApi(address, None).ray_version()
        assert str(error.value) == (
            f"{address} does not answer as the dashboard of a Ray cluster does"
        )


def test_a_refused_connection_says_what_helps():
    with dashboard({}) as (address, _):
        pass
    with pytest.raises(UnreachableError) as error:
        JobsApi(address, None).ray_version()
    assert str(error.value) == (
        f"no Ray dashboard answers at {address} (connection refused); --address must be the URL of the "
        "cluster's dashboard, such as http://head:8265, and from outside of its network a tunnel helps: "
        "ssh -L 8265:127.0.0.1:8265 HEAD"
    )


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with dashboard({"/api/version": (200, {"ray_version": "1"})}) as (address, _):
        assert JobsApi(address, None).ray_version() == "1"


class TestTheToken:
    def test_the_environment_comes_first(self, tmp_path):
        file = tmp_path / "token"
        file.write_text("from file\n")
        named = {"RAY_AUTH_TOKEN_PATH": str(file)}
        assert read_token({**named, "RAY_AUTH_TOKEN": "from variable"}) == "from variable"
        assert read_token(named) == "from file"

    def test_without_any_it_is_the_users(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert read_token({}) is None
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text("mine")
        assert read_token({}) == "mine"
        assert read_token({"RAY_AUTH_MODE": "disabled"}) is None

    def test_a_named_file_must_hold_one(self, tmp_path):
        file = tmp_path / "token"
        with pytest.raises(ConfigError, match="which cannot be read"):
            read_token({"RAY_AUTH_TOKEN_PATH": str(file)})
        file.touch()
        with pytest.raises(ConfigError, match="which is empty"):
            read_token({"RAY_AUTH_TOKEN_PATH": str(file)})


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("head:8265", "http://head:8265"),
        ("https://ray.lab.org/", "https://ray.lab.org"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses(address, url):
    assert dashboard_url(address) == url


@pytest.mark.parametrize(
    "address",
    ["", "ray://head:10001", "http://", "http://head:port", "http://he ad", "http://h/?a=1"],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="valid: the URL of a Ray cluster's dashboard"):
        dashboard_url(address)


def test_a_password_in_an_address_is_not_shown():
    with pytest.raises(ConfigError) as error:
        dashboard_url("http://me:s3cret@head:8265")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://127.0.0.2:1", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("http://10.0.0.1:1", False),
        ("http://head:8265", False),
    ],
)
def test_this_machine_is_known(url, is_here):
    assert is_loopback(url) is is_here
