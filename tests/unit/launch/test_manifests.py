import copy
import json
import re
import shlex
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.main import get_command

from gerbil_tune.cli.app import app
from tests.unit.launch.rayjob_schema import RAY_JOB

CLUSTER = Path(__file__).parents[3] / "cluster"
TOKEN = re.compile(r"\b[0-9a-fA-F]{32,}\b")


def load(name):
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.fixture
def ray_job():
    return load("rayjob.yaml")


@pytest.fixture
def ray_cluster():
    return load("ray-cluster.yaml")


@pytest.mark.parametrize("name", ["rayjob.yaml", "ray-cluster.yaml"])
def test_no_token_is_written_down(name):
    assert TOKEN.search((CLUSTER / name).read_text()) is None


class TestRayCluster:
    def test_it_follows_rays_own_schema(self, ray_cluster):
        package = Path(find_spec("ray").origin).parent
        schema = json.loads((package / "autoscaler/ray-schema.json").read_text())
        jsonschema.validate(ray_cluster, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**ray_cluster, "worker_ips": []}, schema)

    @pytest.mark.ray
    def test_ray_up_accepts_it(self, ray_cluster):
        from ray.autoscaler._private.util import prepare_config, validate_config

        prepared = prepare_config(copy.deepcopy(ray_cluster))
        validate_config(prepared)
        node_type = prepared["available_node_types"]["local.cluster.node"]
        num_workers = len(ray_cluster["provider"]["worker_ips"])
        assert node_type["min_workers"] == node_type["max_workers"] == num_workers
        assert prepared["head_start_ray_commands"] == ray_cluster["head_start_ray_commands"]

    @pytest.mark.parametrize("role", ["head", "worker"])
    def test_bash_reads_its_commands(self, ray_cluster, role):
        for command in ray_cluster[f"{role}_start_ray_commands"]:
            assert "\n" not in command
            subprocess.run(["bash", "-n", "-c", command], check=True)

    @pytest.mark.parametrize("role", ["head", "worker"])
    def test_every_machine_asks_for_the_token(self, ray_cluster, role):
        _, start = ray_cluster[f"{role}_start_ray_commands"]
        words = shlex.split(start)
        assert words[words.index("&&", 4) + 1] == "RAY_AUTH_MODE=token"

    def test_the_token_is_where_ray_looks_for_it(self, ray_cluster):
        assert ray_cluster["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}

    def test_the_dashboard_is_for_the_head_alone(self, ray_cluster):
        assert "--dashboard-host=127.0.0.1" in ray_cluster["head_start_ray_commands"][-1]


def pods(ray_job):
    spec = ray_job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


class TestRayJob:
    def test_it_has_the_fields_of_kuberay(self, ray_job):
        jsonschema.validate(ray_job, RAY_JOB)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("spec", "entryPoint"), "x"),
            (("spec", "submissionMode"), "K8SJobMode"),
            (("spec", "rayClusterSpec", "authOptions", "mode"), "Token"),
            (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
            (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "replicas"), "4"),
        ],
    )
    def test_the_schema_finds_mistakes(self, ray_job, path, value):
        *above, last = path
        place = ray_job
        for key in above:
            place = place[key]
        place[last] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(ray_job, RAY_JOB)

    def test_ray_is_the_one_that_is_tested(self, ray_job):
        assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")

    def test_all_pods_use_the_same_image_and_folders(self, ray_job):
        containers = [container for pod in pods(ray_job) for container in pod["containers"]]
        for key in ("image", "workingDir", "volumeMounts"):
            assert len({json.dumps(container[key]) for container in containers}) == 1
        claims = [
            volume["persistentVolumeClaim"]["claimName"]
            for pod in pods(ray_job)
            for volume in pod["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        assert claims == ["gerbil-tune-shared"] * 2

    def test_what_is_mounted_is_there(self, ray_job):
        for pod in pods(ray_job):
            (container,) = pod["containers"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}
            assert container["workingDir"].startswith("/shared/")

    def test_its_command_needs_no_shell_and_exists(self, ray_job):
        program, command, *arguments = ray_job["spec"]["entrypoint"].split()
        assert program == "gerbil-tune"
        assert command in get_command(app).commands
        assert shlex.join([program, command, *arguments]) == ray_job["spec"]["entrypoint"]
        assert all(word.startswith(("--", "/shared/")) for word in arguments)

    def test_secrets_come_from_secrets(self, ray_job):
        for pod in pods(ray_job):
            for variable in pod["containers"][0]["env"]:
                if re.search("PASSWORD|TOKEN|USERNAME", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"]
        assert ray_job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}

    def test_a_stop_leaves_time_to_save(self, ray_job):
        variables = yaml.safe_load(ray_job["spec"]["runtimeEnvYAML"])["env_vars"]
        wait_s = int(variables["RAY_JOB_STOP_WAIT_TIME_S"])
        assert all(pod["terminationGracePeriodSeconds"] > wait_s for pod in pods(ray_job))

    def test_a_pod_asks_for_the_gpus_that_it_may_use(self, ray_job):
        resources = pods(ray_job)[1]["containers"][0]["resources"]
        assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"]
