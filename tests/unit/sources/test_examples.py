from __future__ import annotations

from pathlib import Path

from fetcher.config import load
from fetcher.registry import BUILT_IN

EXAMPLE = Path(__file__).parents[2] / "data" / "sources.yaml"


def test_the_example_has_every_source():
    config = load(str(EXAMPLE), environ={})
    assert {source.type for source in config.sources} == set(BUILT_IN["sources"])
    assert all(source.build() for source in config.sources)
    assert "change-me" not in repr(config)
