"""Addresses of databases: which are refused, and what of them may be shown."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticCustomError

from fetcher.dsn import check_dsn, place_of


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:hun/ter@h:5432/d",
        "postgresql://u:hun/ter2@h/d",
        "postgresql://u:12/hunter@h/d",
        "postgresql://u:12/34/d",
        "postgresql://u:12?hunter@h/d",
        "postgresql://u:12#hunter",
        "postgresql://u:12#hunter@h/d",
        "postgresql://u:h@/unter@h/d",
        "postgresql://u:hunter@h:/d",
        "postgresql://u:hunter@h:port/d",
        "postgresql://u:hunter@h:0/d",
        "postgresql://u:hunter@[::1/d",
        "mysql://u:hunter@h/d",
        "host=h password=hunter",
        "",
    ],
)
def test_what_could_show_a_part_of_a_password_is_refused_without_it(dsn):
    with pytest.raises(PydanticCustomError, match="should be a URL such as") as caught:
        check_dsn(SecretStr(dsn))
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://u:p@H:5433/d?sslmode=require", "postgresql://h:5433/d"),
        ("postgres://h/d", "postgresql://h:5432/d"),
        ("postgresql://u:p%40%2F@h", "postgresql://h:5432/"),
        ("postgresql://u:p@x@h/d", "postgresql://h:5432/d"),
        ("postgresql://u:p@[::1]:5433/d", "postgresql://[::1]:5433/d"),
        ("postgresql://u:p@a:1,b/d", "postgresql://a:1,b:5432/d"),
        ("postgresql:///d?host=/run/pg&port=5433", "postgresql:///run/pg:5433/d"),
        ("postgresql://u:p@/?host=h&dbname=d&password=p", "postgresql://h:5432/d"),
        ("postgresql://", "postgresql://localhost:5432/"),
    ],
)
def test_a_place_is_known_whoever_asks_for_it(dsn, place):
    assert place_of(check_dsn(SecretStr(dsn)).get_secret_value()) == place
