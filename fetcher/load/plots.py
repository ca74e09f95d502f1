"""The plots of a report. Needs plotly, the extra ``report``. Colours of text and grid are set by the page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from fetcher.histogram import middle_of
from fetcher.load.measurement import QUANTILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fetcher.load.measurement import Report, Setting

# Told apart with any colour vision, and on white as on black (after Okabe and Ito).
_COLOURS = ("#2f7fc1", "#d9822b", "#1a9d77", "#c265a0", "#8a7f2e", "#d1495b", "#4aa3c9", "#7a6fd0")
_MARKS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "hexagon")
_COARSE = 4  # buckets of 2 % shown as one, so that the lines are no fringe
_MS = 1000
_STEPS = ((10, (1, 1.5, 2, 3, 5, 7)), (200, (1, 2, 5)), (math.inf, (1,)))  # up to which span, which labels
_DECADES = (0.001, 0.01, 0.1, 1, 10, 100, 1000, 10_000, 100_000, 1_000_000)


def figures(report: Report) -> dict[str, str]:
    """Return each plot as JSON, by name."""
    if not report.settings:
        return {}
    plots = {
        "throughput": _throughput(report),
        "latency": _latency(report),
        "distribution": _distribution(report),
    }
    # Nothing in a plot comes from the target, but "</script>" could end the script all the same.
    return {name: str(plot.to_json()).replace("<", "\\u003c") for name, plot in plots.items()}


def _throughput(report: Report) -> go.Figure:
    spreads = [setting.throughput for setting in report.settings]
    plot = go.Figure(
        go.Scatter(
            x=[setting.concurrency for setting in report.settings],
            y=[spread.median for spread in spreads],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [spread.high - spread.median for spread in spreads],
                "arrayminus": [spread.median - spread.low for spread in spreads],
            },
            customdata=[[spread.low, spread.high] for spread in spreads],
            hovertemplate="concurrency %{x:,}<br>%{y:,.0f}/s<br>%{customdata[0]:,.0f}-"
            "%{customdata[1]:,.0f}/s<extra></extra>",
            name="requests/s",
            mode="lines+markers",
            line={"color": _COLOURS[0], "width": 2},
            marker={"size": 8},
        )
    )
    if report.plan.rate is not None:
        plot.add_hline(y=report.plan.rate, line_dash="dot", line_color=_COLOURS[1], annotation_text="intended")
    plot.update_layout(
        showlegend=False, xaxis=_concurrency(report), yaxis={"title": "requests/s", "rangemode": "tozero"}
    )
    return plot


def _latency(report: Report) -> go.Figure:
    plot = go.Figure()
    lines = {name: [setting.quantile(q) for setting in report.settings] for name, q in QUANTILES.items()}
    lines["max"] = [setting.slowest if setting.latency else None for setting in report.settings]
    for number, (name, values) in enumerate(lines.items()):
        plot.add_scatter(
            x=[setting.concurrency for setting in report.settings],
            y=[None if value is None else value * _MS for value in values],
            name=name,
            mode="lines+markers",
            line={"color": _COLOURS[number], "width": 2, "dash": "dot" if name == "max" else "solid"},
            marker={"size": 8, "symbol": _MARKS[number]},
            hovertemplate=f"concurrency %{{x:,}}<br>{name} %{{y:,.3~g}} ms<extra></extra>",
        )
    found = [value * _MS for values in lines.values() for value in values if value]
    plot.update_layout(xaxis=_concurrency(report), yaxis={"title": "latency", **_milliseconds(found)})
    return plot


def _distribution(report: Report) -> go.Figure:
    plot = go.Figure()
    seen: list[float] = []
    for number, setting in enumerate(report.settings):
        points = _shares(setting)
        seen += [x for x, share in points if share]
        plot.add_scatter(
            x=[x for x, _ in points],
            y=[share for _, share in points],
            name=f"{setting.concurrency:,} in flight",
            mode="lines",
            line={"color": _COLOURS[number % len(_COLOURS)], "width": 2, "shape": "hvh"},
            hovertemplate="%{x:,.3~g} ms: %{y:.1%}",
        )
    plot.update_layout(
        hovermode="closest",
        xaxis={"title": "latency", **_milliseconds(seen)},
        yaxis={"title": "share of requests", "tickformat": ".0%", "rangemode": "tozero"},
    )
    return plot


def _shares(setting: Setting) -> list[tuple[float, float]]:
    """Return (milliseconds, share of requests) of a histogram, with the empty places between them."""
    coarse: dict[int, int] = {}
    for bucket, count in setting.latency.items():
        coarse[bucket // _COARSE] = coarse.get(bucket // _COARSE, 0) + count
    if not coarse:
        return []
    total = sum(coarse.values())
    return [
        (middle_of((bucket + 0.5) * _COARSE - 0.5) * _MS, coarse.get(bucket, 0) / total)
        for bucket in range(min(coarse) - 1, max(coarse) + 2)
    ]


def _concurrency(report: Report) -> Mapping[str, Any]:
    """Return an axis on which each setting is named; where two would overlap, the page leaves some out."""
    values = [setting.concurrency for setting in report.settings]
    shown = [value for index, value in enumerate(values) if not _crowded(value, values[:index])]
    return {
        "title": "concurrency",
        "type": "log",
        "tickvals": shown,
        "ticktext": [f"{value:,}" for value in shown],
        "range": [math.log10(min(values)) - 0.12, math.log10(max(values)) + 0.12],
    }


def _crowded(value: int, before: list[int]) -> bool:
    return any(max(value, other) < min(value, other) * 1.25 for other in before)


def _milliseconds(values: list[float]) -> Mapping[str, Any]:
    """Return a logarithmic axis with a label at each decade, and between them where they are few."""
    if not values:
        return {"type": "log"}
    low, high = min(values) / 1.3, max(values) * 1.3
    steps = next(steps for span, steps in _STEPS if high / low < span)
    ticks = [decade * step for decade in _DECADES for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": shown,
        "ticktext": [f"{tick / _MS:g} s" if tick >= _MS else f"{tick:g} ms" for tick in shown],
    }
