"""Charts as SVG files for RESULTS.md (matplotlib). The same figures always make the same files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.charts import Chart, Series

_OURS, _BARE, _BLOCKING, _OTHER = "#c2410c", "#1f2937", "#2563eb", "#9ca3af"
# By how the name of a line begins: a contender has one colour in all charts.
_LINES = {
    "bare_aiohttp": _BARE,
    "fetcher_null": "#f59e0b",
    "fetcher": _OURS,
    "http_client": "#0891b2",
    "pycurl_multi": "#059669",
    "pyreqwest": "#9ca3af",
    "socket_threads, a thread": "#7c3aed",
    "socket_threads": _BLOCKING,
}
_BLOCKS = ("blocking_socket", "socket_threads", "http_client", "requests_threads")
_STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 9,
    "svg.hashsalt": "benchmarks",
}
_WHOLE = 100  # from here on without decimals
_AT_MOST = 1.25  # of the longest bar, so that its figure has room


def write(chart: Chart, path: Path) -> None:
    """Draw a chart into a file."""
    with mpl.rc_context(_STYLE):
        rows = len(chart.series)
        figure = Figure(figsize=(8, 1.4 + 0.28 * rows) if chart.kind == "bars" else (8, 4.5), layout="constrained")
        axes = figure.subplots()
        if chart.kind == "bars":
            _bars(axes, chart)
        else:
            _lines(axes, chart)
        axes.set_title(chart.title)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _bars(axes: Axes, chart: Chart) -> None:
    spreads = [each.points[0].y for each in chart.series]
    names = [each.name for each in chart.series]
    middle = [each.median for each in spreads]
    errors = [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
    axes.barh(names, middle, xerr=errors, color=[_color(name) for name in names], height=0.7, ecolor="#555555")
    for row, each in enumerate(spreads):
        axes.annotate(
            f"{each.median:,.0f}" if each.median >= _WHOLE else f"{each.median:,.1f}",
            (each.high, row),
            (5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.invert_yaxis()
    axes.set_xlim(0, max(each.high for each in spreads) * _AT_MOST)
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.set_xlabel(chart.y)
    axes.tick_params(axis="y", length=0)
    _legend(axes)


def _legend(axes: Axes) -> None:
    for label, color in (
        ("fetcher", _OURS),
        ("bare aiohttp loop", _BARE),
        ("blocking", _BLOCKING),
        ("others", _OTHER),
    ):
        axes.bar(0, 0, color=color, label=label)
    if isinstance(axes.figure, Figure):
        axes.figure.legend(loc="outside lower center", ncols=4, frameon=False)


def _color(name: str) -> str:
    if name.startswith("fetcher"):
        return _OURS
    if name.startswith("bare"):
        return _BARE
    return _BLOCKING if name.startswith(_BLOCKS) else _OTHER


def _lines(axes: Axes, chart: Chart) -> None:
    for series in chart.series:
        color = next((color for name, color in _LINES.items() if series.name.startswith(name)), _OTHER)
        x, y = [point.x for point in series.points], [point.y.median for point in series.points]
        errors = list(zip(*_errors(series), strict=True))
        axes.errorbar(x, y, yerr=errors, color=color, marker="o", markersize=4, capsize=2, label=series.name)
    axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_thousands))
        axis.set_minor_formatter(NullFormatter())
    ticks = sorted({point.x for series in chart.series for point in series.points})
    axes.set_xticks(ticks)
    axes.tick_params(which="minor", length=0)
    axes.grid(visible=True, axis="y", color="#e5e7eb")
    lowest = min(point.y.low for series in chart.series for point in series.points)
    axes.set_ylim(bottom=lowest / 1.5 if chart.log_y else 0)
    for text, marked in _grouped(chart.markers):
        axes.axvline(marked, color="#6b7280", linestyle=":")
        axes.annotate(
            text, (marked, 0.02), (4, 0), ("data", "axes fraction"), textcoords="offset points", color="#6b7280"
        )
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _errors(series: Series) -> Iterator[tuple[float, float]]:
    for point in series.points:
        yield point.y.median - point.y.low, point.y.high - point.y.median


def _grouped(markers: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Leave out markers that would be written over one another."""
    last = 0.0
    for text, x in sorted(markers.items(), key=lambda item: item[1]):
        if x > last * 1.5:
            yield text, x
            last = x


def _thousands(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
