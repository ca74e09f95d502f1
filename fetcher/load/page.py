"""A report as one HTML file: plots, the table as text, and everything they need. It opens without network."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from importlib.util import find_spec
from string import Template
from typing import TYPE_CHECKING

from fetcher.extras import missing
from fetcher.load.comparison import compare, differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fetcher.load.comparison import Ratio
    from fetcher.load.measurement import Report, Setting, Spread

_MS = 1000
_KIB = 1024
_TRAFFIC = ("concurrency", "requests/s", "min-max", "p50", "p95", "p99", "max", "errors")
_COST = ("concurrency", "KiB/s", "CPU/request", "of a core", "peak RSS", "loop lag p99")
_PLOTS = {
    "throughput": (
        "Throughput",
        "Requests per second: median of the rounds, with the lowest and the highest.",
    ),
    "latency": ("Latency", "Percentiles over all rounds, against concurrency. Both axes are logarithmic."),
    "distribution": (
        "Distribution of latency",
        "The share of requests by latency, for each concurrency. A click on a name hides it.",
    ),
}


def check() -> None:
    """Raise MissingExtraError if the library that plots is not installed."""
    if find_spec("plotly") is None:
        raise missing("plotly", "report", "--html")


def render(report: Report, old: Report | None = None) -> str:
    """Return the page. Whatever a target or a user wrote in it is escaped."""
    check()
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  an extra, and slow to load

    from fetcher.load.plots import figures  # noqa: PLC0415  the same

    sections, scripts = [], []
    for name, figure in figures(report).items():
        title, text = _PLOTS[name]
        sections.append(
            f'<section><h2>{title}</h2><p class="hint">{text}</p><div class="plot" id="{name}"></div></section>'
        )
        scripts.append(f"draw({name!r}, {figure});")
    template = Template((files("fetcher.load") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(report.target),
        subtitle=escape(_subtitle(report)),
        table=_rows(_TRAFFIC, map(_traffic, report.settings)),
        cost=_rows(_COST, map(_cost, report.settings)),
        errors=_errors(report.settings),
        comparison="" if old is None else _comparison(report, old),
        plots="\n".join(sections),
        notes=_list(report.notes),
        made=_list([f"{key}: {value}" for key, value in {"date": report.date, **report.machine}.items()]),
        library=get_plotlyjs(),
        script="\n".join(scripts),
    )


def _subtitle(report: Report) -> str:
    plan = report.plan
    each = f"{plan.requests:,} requests" if plan.requests is not None else f"{plan.duration:g} s"
    rate = f" at {plan.rate:,.10g} requests/s" if plan.rate is not None else ""
    plural = "s" if plan.rounds != 1 else ""
    rounds = f"{plan.rounds} round{plural} of {each}"
    return f"{report.loop}{rate}; {rounds} after {plan.warm_up:g} s of warm-up"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(map(_table_row, rows))
    table = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    # A wide table scrolls in a box of its own, which the keyboard can reach.
    return f'<div class="wide" tabindex="0" role="region" aria-label="table">{table}</div>'


def _table_row(row: Sequence[str]) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    return f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>'


def _traffic(setting: Setting) -> list[str]:
    failed = setting.requests - setting.ok
    return [
        f"{setting.concurrency:,}",
        _rate(setting.throughput.median),
        _spread(setting.throughput),
        *(_seconds(setting.quantile(q)) for q in (0.5, 0.95, 0.99)),
        _seconds(setting.slowest if setting.latency else None),
        f"{failed:,}" + (f" ({failed / setting.requests:.1%})" if failed else ""),
    ]


def _cost(setting: Setting) -> list[str]:
    cpu = setting.cpu_per_request
    return [
        f"{setting.concurrency:,}",
        f"{setting.bytes_per_second / _KIB:,.0f}",
        "-" if cpu is None else f"{cpu * 1e6:,.0f} us",
        f"{setting.cpu_share:.0%}",
        f"{setting.peak_rss / _KIB**2:,.0f} MiB",
        _seconds(setting.lag),
    ]


def _errors(settings: Iterable[Setting]) -> str:
    rows = [
        (f"{setting.concurrency:,}", kind, f"{count:,}", setting.messages.get(kind, ""))
        for setting in settings
        for kind, count in setting.errors.items()
    ]
    head = ("concurrency", "error kind", "requests", "for example")
    return f"<section><h2>Errors</h2>{_rows(head, rows)}</section>" if rows else ""


def _comparison(report: Report, old: Report) -> str:
    rows = [(f"{one.concurrency:,}", _ratio(one.throughput), _ratio(one.p99)) for one in compare(report, old)]
    table = _rows(("concurrency", "requests/s new/old", "p99 new/old"), rows)
    hint = f"Against the report of {escape(old.date)}; in brackets the worst and the best ratio over all rounds."
    also = _list(differences(report, old))
    return f'<section><h2>Comparison</h2><p class="hint">{hint}</p>{table}{also}</section>'


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    noise = "" if ratio.certain else " within noise"
    return f"{ratio.ratio:.2f} ({ratio.low:.2f}-{ratio.high:.2f}){noise}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004  below, digits are needed


def _spread(values: Spread) -> str:
    return f"{_rate(values.low)}-{_rate(values.high)}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * _MS:.1f} ms" if value < 1 else f"{value:.2f} s"
