from __future__ import annotations

import time

import pytest
from aiohttp import ClientTimeout

from fetcher.transports.http.credentials.digest import (
    Challenge,
    DigestScheme,
    Question,
    _schemes,
    answer_to,
    challenges,
)
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.tracing import HopTrace

NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
INDEX = Question("GET", "/dir/index.html")


class Answered:
    """As much of an answer as a challenge is read from."""

    def __init__(self, *fields: str) -> None:
        self.headers = [("WWW-Authenticate", field) for field in fields]


def hop(url: str = "https://a.test/x?y=1", method: str = "GET") -> Hop:
    return Hop(method, url, [], None, ClientTimeout())


def parameters(authorization: str) -> dict[str, str]:
    pairs = [part.split("=", 1) for part in authorization.removeprefix("Digest ").split(", ")]
    return {name: value.strip('"') for name, value in pairs}


# The examples of RFC 7616, section 3.9, and of RFC 2617, section 3.5. The one of SHA-512-256 is that of erratum 4897.


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_the_rfc(algorithm, response):
    challenge = Challenge("http-auth@example.org", NONCE, algorithm, "auth", OPAQUE)
    found = parameters(answer_to(challenge, "Mufasa", "Circle of Life", INDEX, 1, CNONCE))
    assert found == {
        "username": "Mufasa",
        "realm": "http-auth@example.org",
        "uri": "/dir/index.html",
        "algorithm": algorithm,
        "nonce": NONCE,
        "nc": "00000001",
        "cnonce": CNONCE,
        "qop": "auth",
        "response": response,
        "opaque": OPAQUE,
    }


def test_a_name_that_is_hashed():
    challenge = Challenge(
        "api@example.org", "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", "SHA-512-256", "auth", userhash=True
    )
    question = Question("GET", "/doe.json")
    cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v"
    found = parameters(answer_to(challenge, "J\u00e4s\u00f8n Doe", "Secret, or not?", question, 1, cnonce))
    assert found["username"] == "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    assert found["response"] == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
    assert found["userhash"] == "true"


def test_a_challenge_without_qop_is_answered_as_in_rfc_2069():
    challenge = Challenge("testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "MD5")
    found = parameters(answer_to(challenge, "Mufasa", "CircleOfLife", INDEX, 1, "x"))
    assert found["response"] == "1949323746fe6a43ef61f9606e7febea"
    assert not {"qop", "nc", "cnonce"} & set(found)


def test_a_session_key_and_a_body():
    plain = Challenge("r", "n", "MD5", "auth")
    question = Question("POST", "/", b"body")
    answers = {
        answer_to(challenge, "u", "p", question, 1, "c").partition('response="')[2][:32]
        for challenge in (
            plain,
            Challenge("r", "n", "MD5-sess", "auth"),
            Challenge("r", "n", "MD5", "auth-int"),
        )
    }
    assert len(answers) == 3
    # H(H(u:r:p):n:c), as the hash of the session, and H(method:uri:H(body)).
    from hashlib import md5  # noqa: PLC0415

    def h(text: str) -> str:
        return md5(text.encode(), usedforsecurity=False).hexdigest()

    assert h(f"{h(h('u:r:p') + ':n:c')}:n:00000001:c:auth:{h('POST:/')}") in answers
    assert h(f"{h('u:r:p')}:n:00000001:c:auth-int:{h('POST:/:' + h('body'))}") in answers


def test_a_name_that_is_not_ascii_and_one_with_quotes():
    challenge = Challenge("r", "n", "MD5", "auth")
    assert "username*=UTF-8''J%C3%A4s" in answer_to(challenge, "J\u00e4s", "p", INDEX, 1, "c")
    assert r'username="a\"b\\c"' in answer_to(challenge, 'a"b\\c', "p", INDEX, 1, "c")


# Challenges


def test_challenges_are_found_among_others_in_their_order():
    found = challenges(
        [
            'Basic realm="a, Digest x", Digest realm="r", qop="auth-int,auth", nonce=1, algorithm=SHA-256, stale=True',
            'Digest realm="\\"q\\"", nonce=2',
            "Negotiate abc==",
            "digest NONCE=3,opaque=o",
        ]
    )
    assert found == [
        Challenge("r", "1", "SHA-256", "auth", stale=True),
        Challenge('"q"', "2", "MD5"),
        Challenge("", "3", "MD5", opaque="o"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Digest",
        'Digest realm="r"',
        'Digest nonce="n", algorithm=SHA-1',
        'Digest nonce="n", qop="x"',
        'Digest nonce="n\x01"',
        "\x00",
        ", , ,",
        'Digest nonce="n',
    ],
)
def test_what_can_not_be_answered_is_no_challenge(value):
    assert challenges([value]) == []


# From one request to the next


async def test_nothing_is_known_before_the_first_challenge():
    scheme = DigestScheme("u", "p")
    assert await scheme.authorization(hop(), HopTrace()) is None
    assert not scheme.refused(hop(), None, Answered("Basic realm=x"))
    assert scheme.refused(hop(), None, Answered('Digest nonce="1", qop="auth"'))
    first = parameters(await scheme.authorization(hop(), HopTrace()) or "")
    second = parameters(await scheme.authorization(hop("https://a.test"), HopTrace()) or "")
    assert (first["nonce"], first["uri"], first["nc"]) == ("1", "/x?y=1", "00000001")
    assert (second["nonce"], second["uri"], second["nc"]) == ("1", "/", "00000002")
    assert first["cnonce"] == second["cnonce"]
    # Of another origin, nothing is known yet.
    assert await scheme.authorization(hop("https://a.test:444/"), HopTrace()) is None


async def test_a_new_challenge_is_answered_and_a_refusal_is_not():
    scheme = DigestScheme("u", "p")
    scheme.refused(hop(), None, Answered('Digest nonce="1", qop="auth"'))
    sent = await scheme.authorization(hop(), HopTrace())
    assert not scheme.refused(hop(), sent, Answered('Digest nonce="1", qop="auth"'))
    assert scheme.refused(hop(), sent, Answered('Digest nonce="1", qop="auth", stale=true'))
    assert scheme.refused(hop(), sent, Answered('Digest nonce="2", qop="auth"'))
    assert parameters(await scheme.authorization(hop(), HopTrace()) or "")["nc"] == "00000001"


async def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr("fetcher.transports.http.credentials.digest._MOST_ORIGINS", 2)
    scheme = DigestScheme("u", "p")
    for number in range(3):
        scheme.refused(hop(f"https://h{number}.test/"), None, Answered('Digest nonce="1"'))
    assert await scheme.authorization(hop("https://h0.test/"), HopTrace()) is None
    assert await scheme.authorization(hop("https://h2.test/"), HopTrace()) is not None


def test_a_challenge_that_is_too_long_is_not_read():
    padding = "x" * 5000
    assert challenges([f'Digest realm="{padding}", nonce="n"']) == []
    assert [challenge.nonce for challenge in challenges([padding, 'Digest realm="r", nonce="n"'])] == ["n"]


def test_parts_of_a_challenge_may_have_empty_ones_between_them():
    (challenge,) = challenges(['Basic realm="x" , ,, Digest realm="r",, nonce="n"'])
    assert (challenge.realm, challenge.nonce) == ("r", "n")


@pytest.mark.parametrize(
    "field",
    [
        'Digest realm="x"' + " " * 260_000 + '"',
        'Digest realm="x",' + " " * 260_000 + '"',
        'Digest realm="x"' + " ," * 130_000 + '"',
        "Digest realm" + " " * 260_000 + '"',
        "Digest realm=" + " " * 260_000 + '"',
        "Digest " + "a" * 260_000 + '"',
        'Digest realm="' + "\\x" * 130_000,
        "Digest " + 'a="' * 86_000,
        "Digest " + "a=b " * 65_000 + '"',
    ],
)
def test_a_challenge_takes_time_by_its_length_alone(field):
    """A bound of the field's length hides this; that of the repetitions must hold by itself."""
    started = time.process_time()
    _schemes(field)
    assert time.process_time() - started < 5.0
