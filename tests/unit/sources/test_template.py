from __future__ import annotations

import itertools
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fetcher.errors import SourceError
from fetcher.sources.template import Template, TemplateConfig


async def urls_of(template):
    source = TemplateConfig(url=template).build()
    source.check()
    return [job.url async for chunk in source.read(None) for job in chunk.jobs]


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        ("{1..3}", ["1", "2", "3"]),
        ("{5..5}", ["5"]),
        ("{008..10}", ["008", "009", "010"]),
        ("{1..03}", ["01", "02", "03"]),
        ("{0..10..5}", ["0", "5", "10"]),
        ("{0..9..5}", ["0", "5"]),
        ("{a,b,}", ["a", "b", ""]),
        ("{1..2}/{x,y}", ["1/x", "1/y", "2/x", "2/y"]),
        ("{1..2}%7Bz%7D", ["1%7Bz%7D", "2%7Bz%7D"]),
    ],
)
async def test_what_templates_stand_for(template, ends):
    assert await urls_of(f"http://a.test/{template}") == [f"http://a.test/{end}" for end in ends]


async def test_a_host_can_be_counted():
    assert await urls_of("http://{,www.}h{1..2}.test/") == [
        "http://h1.test/",
        "http://h2.test/",
        "http://www.h1.test/",
        "http://www.h2.test/",
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("http://a.test/", "has no range such as {1..10} and no list such as {a,b}"),
        ("http://a.test/{3..1}", "'{3..1}' runs backwards; write {1..3}"),
        ("http://a.test/{1..3..0}", "'{1..3..0}' has a step of 0"),
        ("http://a.test/{1..1000000000000000000000}", "more than 18 digits"),
        ("http://a.test/{1..2}{id}", "'{id}' is neither a range such as {1..10} nor a list"),
        ("http://a.test/{1...9}", "'{1...9}' is neither a range"),
        ("http://a.test/{}", "'{}' is neither a range"),
        ("http://a.test/{1..2", "the '{' at character 15 has no partner"),
        ("http://a.test/1..2}", "the '}' at character 19 has no partner"),
        ("a.test/{1..2}", "URL number 1 of 2 can not be fetched: has no scheme"),
        ("http://a.test/{1..5}/{x,a b}", "URL number 2 of 10 can not be fetched: contains a space"),
        ("http://a.test:{65530..65540}/", "URL number 11 of 11 can not be fetched"),
    ],
)
def test_mistakes_are_found_at_load(template, message):
    with pytest.raises(ValidationError) as caught:
        TemplateConfig(url=template)
    error = caught.value.errors()[0]
    assert error["loc"] == ("url",)
    assert message in error["msg"]


async def test_a_huge_template_is_counted_and_not_held():
    size = 10**18
    config = TemplateConfig(url=f"http://a.test/{{1..{size - 1}}}/{{a,b}}/{{0..99}}")
    async with aclosing(config.build().read(str((size - 1) * 200 - 1))) as chunks:
        (job,) = (await anext(chunks)).jobs
    assert job.url == f"http://a.test/{size - 1}/b/99"
    assert job.id == str((size - 1) * 200)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 6), st.integers(1, 4))
        | st.lists(st.sampled_from("abc"), min_size=2, max_size=3),
        min_size=1,
        max_size=3,
    )
)
def test_every_combination_in_order(slots):
    texts, values = [], []
    for slot in slots:
        if isinstance(slot, tuple):
            first, more, step = slot
            texts.append(f"{{{first}..{first + more}..{step}}}")
            values.append([str(number) for number in range(first, first + more + 1, step)])
        else:
            texts.append("{" + ",".join(slot) + "}")
            values.append(slot)
    template = Template("http://a.test/" + "-".join(texts))
    expected = ["http://a.test/" + "-".join(mix) for mix in itertools.product(*values)]
    assert [template.url(index) for index in range(template.size)] == expected


@pytest.mark.parametrize("position", ["4", "-1", "x"])
async def test_a_position_that_does_not_fit(position):
    with pytest.raises(SourceError, match="changed since"):
        await anext(TemplateConfig(url="http://a.test/{1..3}").build().read(position))
