"""Many hosts of very unequal size, each with a limit of its own: is anybody ever kept waiting for nothing?

The lower bound of any schedule is the greater of two times: all the work shared out over everything that may
be in flight, and the work of the largest host shared out over what that host may have in flight. Work is jobs
times service time: the mean time from the start of a request to the end of its response, measured in the same
round by a run of the largest hosts with a tenth of the load.

A second bound is taken from the service times of the run itself. What lies between the two is that everything
takes longer under load; what lies above the second is waiting for nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.cases import Case, Check, Options, Report, Table
from benchmarks.comparison import shown, spread_of
from benchmarks.inputs import write_lines, zipf_hosts
from benchmarks.measure import Entrant, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Bench, Round, Sample

_PATH = "/delay/0.02/bytes/100"
_SIZE = 100
_PER_HOST = 2
_JOBS_PER_HOST = 10
_BOUND = 1.05
_LIGHT = "light load"
_LIGHT_SHARE = 10  # a tenth of the load
_LIGHT_JOBS = 100  # of each host, so that opening its connections does not count for much
# In the first the largest host alone decides: it has a ninth of all jobs. In the second all slots are busy
# nearly to the end, at a rate at which service takes longer: it is held to its own service times.
_EXPONENTS = {"steep": 1.0, "flat": 0.6}
_MEASURED_LIGHT = "steep"


def run(bench: Bench, options: Options) -> Report:
    """Run each set of hosts in random order and sorted by host."""
    count = options.requests
    sets = {name: zipf_hosts(count, max(1, count // _JOBS_PER_HOST), e) for name, e in _EXPONENTS.items()}
    entrants = [_light(bench, sets["steep"], options)]
    labels: dict[str, list[str]] = {}
    for name, hosts in sets.items():
        for order, ordered in (("random", hosts), ("sorted", sorted(hosts))):
            label = f"{name}, {order}"
            labels[label] = hosts
            entrants.append(_entrant(bench, label, ordered, options.concurrency))
    rounds = bench.rounds(entrants, options.repeat)
    rows = [_Row(label, hosts, rounds, options.concurrency) for label, hosts in labels.items()]
    return Report(
        tables=[_table(rows, options.concurrency)],
        checks=[row.check() for row in rows],
        samples=[sample for each in rounds for sample in each.values()],
        notes=[
            "makespan: from the start of the first request to the end of the last response",
            "elapsed: by the run's own tally, with the first reads and the last, batched write (0.1 s)",
            f"bound: max(jobs / {options.concurrency}, largest / {_PER_HOST}) x service time at light load",
            "x own: makespan to the same bound, taken from what each request of the run itself took",
        ],
    )


def _light(bench: Bench, hosts: Sequence[str], options: Options) -> Entrant:
    concurrency = max(1, options.concurrency // _LIGHT_SHARE)
    largest = Counter(hosts).most_common(max(1, concurrency // _PER_HOST))
    few = [host for host, jobs in largest for _ in range(min(jobs, _LIGHT_JOBS))]
    return _entrant(bench, _LIGHT, few, concurrency)


def _entrant(bench: Bench, label: str, hosts: Sequence[str], concurrency: int) -> Entrant:
    port = bench.origin.port
    lines = (f"http://{host}:{port}{_PATH}?n={n}" for n, host in enumerate(hosts))
    urls = write_lines(bench, f"{label}.txt", lines)
    return Entrant(label, "fetcher_run", urls, len(hosts), len(hosts) * _SIZE, concurrency, _PER_HOST)


class _Row:
    """The runs of one set of hosts in one order, each beside its bounds."""

    def __init__(self, label: str, hosts: Sequence[str], rounds: Sequence[Round], concurrency: int) -> None:
        sizes = Counter(hosts)
        self.label = label
        self.sizes = sizes
        self.rounds = rounds
        self.concurrency = concurrency
        longest = max(len(hosts) / concurrency, max(sizes.values()) / _PER_HOST)
        self.bounds = [longest * _service(each[_LIGHT]) for each in rounds]
        times = [_span(each[label]) for each in rounds]
        self.light = spread([time / bound for time, bound in zip(times, self.bounds, strict=True)])
        self.own = spread([time / self._own(each) for time, each in zip(times, rounds, strict=True)])

    def _own(self, each: Round) -> float:
        fetched = each[self.label].fetched
        busiest = fetched.busiest_host_s or 0.0
        return max(_service(each[self.label]) * fetched.count / self.concurrency, busiest / _PER_HOST)

    def check(self) -> Check:
        """Compare with the bound that is meant for this set."""
        if self.label.startswith(_MEASURED_LIGHT):
            ratio, bound = self.light, "the lower bound"
        else:
            ratio, bound = self.own, "the lower bound by its own service times"
        text = f"{self.label}: at most {_BOUND:g} times {bound}"
        return Check(text, f"{shown(ratio, '.3f')} times", ratio.median <= _BOUND)

    def cells(self) -> list[str]:
        """Write the row of the table."""
        return [
            self.label,
            f"{max(self.sizes.values()):,}",
            shown(spread(self.bounds), ".2f"),
            spread_of(self.rounds, self.label, _span, ".2f"),
            spread_of(self.rounds, self.label, lambda sample: sample.fetched.seconds, ".2f"),
            shown(self.light, ".3f"),
            shown(self.own, ".3f"),
            spread_of(self.rounds, self.label, lambda sample: _service(sample) * 1000, ".1f"),
            spread_of(self.rounds, _LIGHT, lambda sample: _service(sample) * 1000, ".1f"),
        ]


def _span(sample: Sample) -> float:
    return sample.fetched.span_s or float("nan")


def _service(sample: Sample) -> float:
    return sample.fetched.service_s or float("nan")


def _table(rows: Sequence[_Row], concurrency: int) -> Table:
    columns = ["order", "largest", "bound s", "makespan s", "elapsed s", "x bound", "x own", "ms", "ms light"]
    sizes = rows[0].sizes
    title = f"{sizes.total():,} jobs, {len(sizes):,} hosts, {concurrency} in flight, {_PER_HOST} a host, {_PATH}"
    return Table(title, columns, [row.cells() for row in rows])


CASE = Case(
    goal=f"10,000 jobs over 1,000 hosts of very unequal size end within {_BOUND - 1:.0%} of the time that no "
    "schedule can beat, whether they come in random order or sorted by host.",
    run=run,
    requests=10_000,
    repeat=3,
)
