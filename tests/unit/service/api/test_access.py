from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from fetcher.service.api.access import ANYBODY, Caller, authorize
from fetcher.service.api.problems import ProblemError
from fetcher.service.settings import TokenSettings, hash_token

TOKENS = [
    TokenSettings(name="reader", hash=hash_token("r")),
    TokenSettings(name="writer", hash=hash_token("w"), scopes=["write"]),
    TokenSettings(name="also the writer", hash=hash_token("w"), scopes=["read"]),
]


def headers(*values):
    return CIMultiDictProxy(CIMultiDict(("Authorization", value) for value in values))


def test_without_tokens_anybody_may_do_everything():
    assert authorize(headers(), [], "write") is ANYBODY


def test_what_takes_no_scope_takes_no_token():
    assert authorize(headers("Bearer wrong"), TOKENS, None) is ANYBODY


@pytest.mark.parametrize("value", ["Bearer r", "bearer r", "BEARER  r "])
def test_a_token_says_who_asks(value):
    assert authorize(headers(value), TOKENS, "read") == Caller("reader", frozenset({"read"}))


def test_a_token_that_stands_twice_has_the_scopes_of_both():
    assert authorize(headers("Bearer w"), TOKENS, "read") == Caller("writer", frozenset({"read", "write"}))


@pytest.mark.parametrize(
    "values", [["r"], ["Bearer"], ["Bearer x"], ["Bearer r", "Bearer r"], ["Bearer \xe4"], ["Basic r"]]
)
def test_what_is_no_token_of_ours(values):
    with pytest.raises(ProblemError) as refused:
        authorize(headers(*values), TOKENS, "read")
    assert refused.value.status == 401
    assert refused.value.headers["WWW-Authenticate"] == 'Bearer realm="fetcher", error="invalid_token"'


def test_a_request_without_a_token_is_not_told_that_it_has_a_wrong_one():
    with pytest.raises(ProblemError) as refused:
        authorize(headers(), TOKENS, "read")
    assert refused.value.headers["WWW-Authenticate"] == 'Bearer realm="fetcher"'
