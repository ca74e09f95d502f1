"""What may stand in the config of a service, and what messages show of it."""

from __future__ import annotations

import pytest

from fetcher.config import ConfigProblems
from fetcher.config.loading import load_text
from fetcher.service.settings import ServiceConfig, hash_token

SECRET = "SuperSecretTokenValue1234567890abcdef"


def load(text):
    return load_text(ServiceConfig, text, "service.yaml", environ={"TOKEN": SECRET})


@pytest.mark.parametrize(
    "token",
    [
        f"{{name: bob, hash: {SECRET}}}",
        f"{{name: bob, hash: [{SECRET}]}}",
        f"{{name: bob, hash: {SECRET}, token: {SECRET}}}",
        f"{{name: bob, token: {SECRET}, scopes: [all]}}",
        f"{{name: bob, hash: '{hash_token(SECRET)}', token: {SECRET}}}",
        "{name: bob, hash: '${TOKEN}'}",
        f"{{name: bob, token: {SECRET[:15]}}}",
        f"{{name: bob, hash: '{hash_token(SECRET)}', tokn: {SECRET}}}",
    ],
)
def test_no_message_shows_a_token(token):
    with pytest.raises(ConfigProblems) as caught:
        load(f"service:\n  tokens:\n    - {token}\n")
    assert SECRET[:15] not in str(caught.value)
    assert "service.yaml:3: service.tokens.0" in str(caught.value)


def test_a_token_is_known_by_its_hash_or_by_itself():
    tokens = f"[{{name: a, hash: '{hash_token(SECRET)}'}}, {{name: b, token: '${{TOKEN}}'}}]"
    config = load(f"service: {{tokens: {tokens}}}\n")
    assert [token.fits(SECRET) for token in config.service.tokens] == [True, True]
    assert [token.fits(SECRET[1:]) for token in config.service.tokens] == [False, False]


def test_who_can_be_reached_from_elsewhere_has_tokens():
    with pytest.raises(ConfigProblems, match="takes tokens; make one: fetcher token"):
        load("service: {host: 0.0.0.0}\n")
    assert load(f"service: {{host: 0.0.0.0, tokens: [{{name: a, hash: '{hash_token(SECRET)}'}}]}}\n").service.is_open
