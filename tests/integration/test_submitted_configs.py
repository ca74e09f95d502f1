"""What a running service refuses of a client: to change its config, and to be held up by a pattern."""

from __future__ import annotations

import json
import urllib.error

import pytest

from tests.serve_process import serve_process


def refusal(service, **config):
    with pytest.raises(urllib.error.HTTPError) as caught:
        service.submit(**config)
    assert caught.value.code == 422
    return json.load(caught.value)["problems"]


def test_no_client_changes_the_config_of_the_service_or_holds_it_up(tmp_path):
    path = tmp_path / "svc.yaml"
    path.write_text("service: {python: false}\n")
    job = {"url": "http://127.0.0.1:9/", "meta": {"x": "service: {python: true}"}}
    sink = {"type": "file", "path": "svc.yaml", "if_exists": "append", "format": {"type": "csv", "columns": ["meta.x"]}}
    sources = [{"type": "inline", "jobs": [job]}]
    with serve_process(tmp_path, config="svc.yaml") as service:
        (problem,) = refusal(service, sources=sources, sinks=[sink])
        assert "sinks.0.path: lies where the service keeps its config" in problem
        for number in range(8):
            (problem,) = refusal(service, sources=[f"**/**/**/{number}.txt"])
            assert "may have ** in it once" in problem
        (problem,) = refusal(service, sources=["none.csv"])
        assert "none.csv: can not be opened" in problem
        assert str(tmp_path) not in problem
        for expression, why in ((" | ".join(["[@, @][]"] * 60), "too many copies"), ("a[", "is no JMESPath")):
            (problem,) = refusal(service, sources=["http://127.0.0.1:9/"], expect={"json": expression})
            assert "expect.json: " in problem
            assert why in problem
        assert service.ask("GET", "/readyz")
        assert service.stop() == 0
    assert path.read_text() == "service: {python: false}\n"


def test_by_default_clients_have_a_folder_of_their_own(tmp_path):
    with serve_process(tmp_path, "service.files=files") as service:
        assert (tmp_path / "files").is_dir()
        (problem,) = refusal(service, sources=["http://127.0.0.1:9/"], sinks=["out.jsonl"])
        assert "sinks.0.path: lies outside of service.files (files); " in problem
