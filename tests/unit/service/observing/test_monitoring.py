"""What config/ has for Prometheus and Grafana speaks of metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fetcher.model import Outcome, Result
from fetcher.service.observing.metrics import Metrics

CONFIG = Path("config")
DASHBOARD = CONFIG / "grafana" / "dashboards" / "fetcher.json"
ALERTS = CONFIG / "prometheus" / "alerts.yml"
# What Prometheus itself adds.
THEIRS = {"up"}
_SELECTOR = re.compile(r"\b((?:fetcher|process|python)_\w+|up\b)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*[=!]")


class Service:
    running = {}  # noqa: RUF012
    concurrency = 1
    is_config_loaded = True

    def states(self):
        return {"running": 1}

    def bounds(self):
        return {}


@pytest.fixture(scope="module")
def known():
    """Return the labels of all samples by their names."""
    metrics = Metrics(Service())
    metrics.observe([Result(batch="b", job_id="1", url="http://h/", outcome=Outcome.OK, attempts=1)])
    # What has no sample while there is no sink and no retry.
    found = {
        "fetcher_retries_total": {"reason"},
        "fetcher_sink_errors_total": {"sink"},
        **{f"fetcher_sink_flush_seconds_{part}": {"sink", "le"} for part in ("bucket", "sum", "count")},
    }
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def alerts():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions():
    return [rule["expr"] for rule in alerts()] + [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_that_is_asked_for_is_there(known, expression):
    found = _SELECTOR.findall(expression)
    assert found
    for name, labels in found:
        if name in THEIRS:
            continue
        assert name in known
        assert set(_LABEL.findall(labels)) <= known[name] | {"job"}
    by = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    assert by <= set.union(*(known.get(name, set()) for name, _ in found))
    promql_parser.parse(expression.replace("$__rate_interval", "1m").replace("$__range", "1h"))


def test_every_metric_of_ours_is_shown():
    text = " ".join(expressions())
    for name in (
        "requests_total",
        "retries_total",
        "request_duration_seconds",
        "inflight_requests",
        "queue_depth",
        "response_bytes_total",
        "sink_flush_seconds",
        "sink_errors_total",
        "dead_letter_total",
        "loop_lag_seconds",
        "batches",
        "bound_ratio",
    ):
        assert f"fetcher_{name}" in text


def test_alerts_say_what_is_wrong_and_how_bad():
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_panels_have_places_of_their_own():
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_all_parts_find_one_another():
    prometheus = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text())
    assert prometheus["rule_files"] == [ALERTS.name]
    (job,) = prometheus["scrape_configs"]
    assert job["job_name"] == "fetcher"
    provisioning = CONFIG / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    used = {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert used == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "fetcher.yaml").read_text())["providers"]
    mounted = yaml.safe_load(Path("compose.yaml").read_text())["services"]
    assert f"./config/grafana/dashboards:{provider['options']['path']}:ro" in mounted["grafana"]["volumes"]
    assert "./config/prometheus:/etc/prometheus:ro" in mounted["prometheus"]["volumes"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{mounted['prometheus']['secrets'][0]}"
    (target,) = job["static_configs"][0]["targets"]
    assert target.partition(":")[0] in mounted
