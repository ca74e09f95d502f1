"""At which latency blocking in threads and waiting for many at once cross: computed, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks import contest, crossing
from benchmarks.cases import Report, Table
from benchmarks.charts import Chart, Point, Series, over
from benchmarks.comparison import shown, spread_of
from benchmarks.crossing import Way
from benchmarks.measure import Race, Spread

if TYPE_CHECKING:
    from benchmarks.cases import Options
    from benchmarks.measure import Bench

_DELAYS = (0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_THREADS = 32
_IN_FLIGHT = 10  # times what the options say
_REQUESTS = 0.5  # of what the options say
_SECONDS = 0.8  # for which whoever is slow at a latency should run
_MANY = contest.BARE
_BLOCKING = ("socket_threads", "http_client")


class _Grid(msgspec.Struct):
    """The races by latency in seconds, and what each contender has in flight."""

    races: dict[float, Race]
    slots: dict[str, int]

    def ways(self) -> dict[str, Way]:
        """Take the CPU time from where nobody waits; the latency there is the smallest."""
        race = self.races[min(self.races)]
        return {
            label: Way(slots, over(race, label, lambda sample: sample.cpu_us).median / 1e6)
            for label, slots in self.slots.items()
        }

    def line(self, label: str) -> list[Spread]:
        """Return the rates over all latencies."""
        return [over(race, label, lambda sample: sample.rate) for race in self.races.values()]


def grid(bench: Bench, options: Options) -> Report:
    """Measure two ways to block and one not to at several latencies."""
    level = _IN_FLIGHT * options.concurrency
    slots = dict.fromkeys(_BLOCKING, min(_THREADS, level)) | {_MANY: level}
    requests = max(1, round(options.requests * _REQUESTS))
    races = {}
    for delay in _DELAYS:
        path = f"/delay/{delay:g}/bytes/{contest.SIZE}"
        task: dict[str, Any] = {"concurrency": level, "threads": _THREADS, "group": f"grid-{delay:g}"}
        entrants = [
            contest.entrant(bench, label, path, _count(requests, slots[label], delay), **task) for label in slots
        ]
        races[delay] = bench.race(entrants, options.repeat)
    broken = {label: why for race in races.values() for label, why in race.broken.items()}
    samples = [sample for race in races.values() for sample in race.samples]
    if broken:
        return Report(tables=[], checks=[], samples=samples, broken=broken)
    found = _Grid(races, slots)
    return Report([_table(found)], [], samples, notes=_notes(found), charts=[_chart(found)])


def _count(requests: int, slots: int, delay: float) -> int:
    return min(requests, max(1, round(_SECONDS * slots / delay))) if delay else requests


def _table(found: _Grid) -> Table:
    rows = []
    for delay, race in found.races.items():
        cells = [spread_of(race.rounds, label, lambda sample: sample.rate, ",.0f") for label in found.slots]
        predicted = [f"{way.rate(delay):,.0f}" for way in found.ways().values()]
        rows.append([f"{delay * 1000:g}", *cells, *predicted])
    names = [f"{label}, {slots:,}" for label, slots in found.slots.items()]
    columns = ["latency ms", *names, *(f"at best {name}" for name in names)]
    return Table("requests/s by latency, with so many in flight", columns, rows)


def _notes(found: _Grid) -> list[str]:
    ways = found.ways()
    many = ways[_MANY]
    notes = ["at best: min(in flight / (latency + CPU), 1 / CPU), with the CPU time per request at 0 ms"]
    for label in _BLOCKING:
        threads = ways[label]
        rates = [[point.median for point in found.line(name)] for name in (label, _MANY)]
        measured = crossing.where_lines_cross([delay * 1000 for delay in found.races], *rates)
        computed = crossing.latency_of(threads, many)
        notes.append(
            f"{label} ({threads.slots} threads, {threads.cpu * 1e6:.0f} us a request) and {_MANY} "
            f"({many.slots:,} in flight, {many.cpu * 1e6:.0f} us) cross at a latency of "
            f"{_ms(None if computed is None else computed * 1000)} by computation, {_ms(measured)} as measured: "
            f"below it the cheaper request wins, above it who waits for more"
        )
        longest = max(found.races)
        notes.append(
            f"at {longest * 1000:g} ms {_MANY} needs {_number(crossing.concurrency_of(threads, many, longest))} in "
            f"flight to be as fast as {label} with {threads.slots} threads; {label} would need "
            f"{_number(crossing.threads_for(threads, many, longest))} threads to be as fast as {_MANY} "
            f"with {many.slots:,} in flight"
        )
    return notes


def _chart(found: _Grid) -> Chart:
    delays = {delay: max(delay * 1000, 1) for delay in found.races}  # 0 has no place on a logarithmic axis
    series = []
    for label, way in found.ways().items():
        name = f"{label}, {way.slots:,} {'in flight' if label == _MANY else 'threads'}"
        line = zip(delays.values(), found.line(label), strict=True)
        series.append(Series(name, [Point(x, y) for x, y in line]))
    markers = {}
    for label in _BLOCKING:
        computed = crossing.latency_of(found.ways()[label], found.ways()[_MANY])
        if computed:
            markers[f"computed: {shown(Spread(*[computed * 1000] * 3), '.1f')} ms"] = computed * 1000
    return Chart(
        name="crossing",
        title="Where blocking in threads and not blocking cross",
        kind="lines",
        x="latency of an answer in ms (0 is drawn at 1)",
        y="requests/s",
        series=series,
        markers=markers,
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.1f} ms" if value else "0 ms (at any)"


def _number(value: int | None) -> str:
    return "no number of" if value is None else f"{value:,}"
