"""What brings the service into a container says the same as the service itself: ports, paths, times, the secret."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from fetcher.config.loading import load_root
from fetcher.service.settings import ServiceConfig
from fetcher.settings import parse_duration

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config/container/service.yaml"
TOKEN = "a-token-of-at-least-20-characters"


@pytest.fixture
def service(tmp_path):
    """The service of the container, with its secret in a folder of this machine."""
    secret = tmp_path / "fetcher_token"
    secret.write_text(f"{TOKEN}\n")
    text = CONFIG.read_text()
    assert "/run/secrets/fetcher_token" in text
    config = tmp_path / "service.yaml"
    config.write_text(text.replace("/run/secrets/fetcher_token", str(secret)))
    return load_root(ServiceConfig, config, (), {})


@pytest.fixture
def compose():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture
def kubernetes():
    parts = yaml.safe_load_all((ROOT / "config/kubernetes/fetcher.yaml").read_text())
    return {part["kind"]: part for part in parts}


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line]


def test_the_container_is_open_to_those_who_have_the_token(service):
    assert service.service.is_open
    assert [token.fits(TOKEN) for token in service.service.tokens] == [True]
    assert [token.fits("another-token-of-20-characters") for token in service.service.tokens] == [False]
    assert service.guard is not None


def test_the_image_starts_the_service_with_its_config(service):
    said = dict(_instructions())
    assert json.loads(said["ENTRYPOINT"]) == ["fetcher"]
    assert json.loads(said["CMD"]) == ["serve", "/etc/fetcher/service.yaml"]
    assert ("COPY", "config/container/service.yaml /etc/fetcher/service.yaml") in _instructions()
    assert int(said["EXPOSE"]) == service.service.port
    assert (said["USER"], said["VOLUME"]) == ("10001", "/state")


def test_what_the_service_writes_lies_in_the_volume(service, compose, kubernetes):
    settings = service.service
    volume = Path(dict(_instructions())["VOLUME"])
    assert all(Path(path).is_relative_to(volume) for path in (settings.state_dir, settings.watch, settings.files))
    assert f"state:{volume}" in compose["services"]["fetcher"]["volumes"]
    assert compose["services"]["fetcher"]["read_only"] is True
    [container] = kubernetes["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "state", "mountPath": str(volume)} in container["volumeMounts"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_health_check_asks_the_service(service):
    options, _, command = dict(_instructions())["HEALTHCHECK"].partition("CMD ")
    program, flag, code = json.loads(command)
    ast.parse(code)
    assert (program, flag) == ("python", "-c")
    assert f"http://127.0.0.1:{service.service.port}/livez" in code
    assert "--start-period" in options


def test_there_is_time_to_end_before_the_kill(service, compose, kubernetes):
    within = service.service.shutdown_timeout
    assert parse_duration(compose["services"]["fetcher"]["stop_grace_period"]) > within
    assert kubernetes["StatefulSet"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > within


def test_all_files_that_compose_mounts_are_there(compose):
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(paths) >= 4
    assert [path for path in paths if not (ROOT / path).exists()] == []
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith("./")}
    assert named == set(compose["volumes"])


def test_prometheus_has_the_token_and_calls_the_service_by_a_name_that_it_knows(service, compose):
    prometheus = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())
    [job] = [job for job in prometheus["scrape_configs"] if job["job_name"] == "fetcher"]
    [target] = job["static_configs"][0]["targets"]
    assert target == f"{service.service.hosts[0]}:{service.service.port}"
    assert target.split(":")[0] in compose["services"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/fetcher_token"
    assert compose["services"]["prometheus"]["secrets"] == ["fetcher_token"]


def test_the_secret_of_compose_is_a_file(compose):
    # One from the environment would be copied into the root file system, which is read-only.
    assert set(compose["secrets"]["fetcher_token"]) == {"file"}
    assert compose["secrets"]["fetcher_token"]["file"].removeprefix(".") in (ROOT / ".gitignore").read_text().split()


def test_compose_lets_nobody_else_in(compose):
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_kubernetes_asks_for_what_there_is(service, kubernetes):
    pod = kubernetes["StatefulSet"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": service.service.port}]
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert kubernetes["StatefulSet"]["spec"]["replicas"] == 1
    assert container["args"] == ["serve", "/etc/fetcher/service.yaml"]
    labels = kubernetes["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes["Service"]["spec"]["selector"] == labels
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claimed = {claim["metadata"]["name"] for claim in kubernetes["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed
