"""A case's figures as one page that needs no network: tables, and plots to point at (plotly)."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import plotly.offline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from benchmarks.cases import Report, Table
    from benchmarks.charts import Chart, Series

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 2rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child, td[colspan] { text-align: left }
.scroll { overflow-x: auto } dt { float: left; width: 6rem; color: #777 } dd { margin: 0 0 0 6rem }
.missed { color: #b00 } .held { color: #070 } footer { color: #555 }
"""
_FIELDS = {"displaylogo": False, "responsive": True}


def write(path: Path, name: str, goal: str, report: Report, about: Mapping[str, str]) -> None:
    """Write the page."""
    parts = [
        f"<h1>{escape(name)}</h1><p>{escape(goal)}</p>",
        "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in about.items()) + "</dl>",
        *(_plot(chart) for chart in report.charts),
        *(_table(table) for table in report.tables),
        "<ul>" + "".join(_checks(report)) + "</ul>",
        "<footer><ul>" + "".join(f"<li>{escape(note)}</li>" for note in report.notes) + "</ul></footer>",
    ]
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(name)}</title>"
        '<link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style><script>{plotly.offline.get_plotlyjs()}</script>{''.join(parts)}</html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _checks(report: Report) -> Iterable[str]:
    for check in report.checks:
        verdict = "held" if check.held else "missed"
        yield f'<li class="{verdict}">{verdict}: {escape(check.bound)}: {escape(check.measured)}</li>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    return (
        f"<h2>{escape(table.title)}</h2><p>median (min - max)</p>"
        f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
    )


def _cells(row: list[str]) -> str:
    if not any(row[2:]):  # one that did not take part: its reason
        return f'<td>{escape(row[0])}</td><td colspan="{len(row) - 1}">{escape(row[1])}</td>'
    return "".join(f"<td>{escape(cell)}</td>" for cell in row)


def _plot(chart: Chart) -> str:
    figure = go.Figure()
    if chart.kind == "bars":
        _add_bars(figure, chart)
    else:
        for series in chart.series:
            _add_line(figure, series)
        figure.update_xaxes(title=chart.x, type="log")
        figure.update_yaxes(title=chart.y, type="log" if chart.log_y else "linear", rangemode="tozero")
        for text, x in chart.markers.items():
            figure.add_vline(x=x, line_dash="dot")
            # On a logarithmic axis an annotation, unlike a line, is placed by the exponent.
            figure.add_annotation(x=log10(x), y=0, yref="paper", text=text, showarrow=False, xanchor="left")
    height = 140 + 32 * len(chart.series) if chart.kind == "bars" else 480
    figure.update_layout(title=chart.title, height=height, template="plotly_white", margin={"l": 10, "r": 10})
    return str(figure.to_html(include_plotlyjs=False, include_mathjax=False, full_html=False, config=_FIELDS))


def _add_bars(figure: go.Figure, chart: Chart) -> None:
    series = chart.series[::-1]  # drawn from below
    spreads = [each.points[0].y for each in series]
    figure.add_bar(
        orientation="h",
        x=[each.median for each in spreads],
        y=[each.name for each in series],
        text=[f"{each.median:,.0f}" for each in spreads],
        error_x={
            "type": "data",
            "array": [each.high - each.median for each in spreads],
            "arrayminus": [each.median - each.low for each in spreads],
        },
    )
    figure.update_xaxes(title=chart.y)
    figure.update_yaxes(automargin=True)


def _add_line(figure: go.Figure, series: Series) -> None:
    spreads = [point.y for point in series.points]
    figure.add_scatter(
        name=series.name,
        mode="lines+markers",
        x=[point.x for point in series.points],
        y=[each.median for each in spreads],
        error_y={
            "type": "data",
            "array": [each.high - each.median for each in spreads],
            "arrayminus": [each.median - each.low for each in spreads],
        },
    )
