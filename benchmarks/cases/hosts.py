"""Many hosts of very unequal size, each with a limit of its own: is anybody ever kept waiting for nothing?

The lower bound of any schedule is the greater of two times: all the work shared out over everything that may be
in flight, and the work of the largest host shared out over what that host may have in flight. Work is jobs times
service time: the mean time from the start of a request to the end of its response, measured in the same round by
a run of the largest hosts with a tenth of the load.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.cases import Case, Check, Options, Report, Table
from benchmarks.comparison import shown, spread_of
from benchmarks.inputs import write_lines, zipf_hosts
from benchmarks.measure import Entrant, Spread, spread

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
# One where the largest host alone decides (a seventh of all jobs), one where both bounds are close together.
_EXPONENTS = {"steep": 1.0, "flat": 0.6}


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
    ratios = {label: _ratio(rounds, label, hosts, options.concurrency) for label, hosts in labels.items()}
    return Report(
        tables=[_table(rounds, labels, ratios, options.concurrency)],
        checks=[
            Check(
                f"{label}: at most {_BOUND:g} times the lower bound",
                f"{ratio.median:.3f} times",
                ratio.median <= _BOUND,
            )
            for label, ratio in ratios.items()
        ],
        samples=[sample for each in rounds for sample in each.values()],
        notes=[
            "makespan: the elapsed time of the run's own tally, reading of the file and last write included",
            f"lower bound: max(jobs / {options.concurrency}, largest / {_PER_HOST}) x service time at light load",
            "where service is slower in the run than at light load (last columns), that counts against the run",
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


def _lower_bound(light: Sample, hosts: Sequence[str], concurrency: int) -> float:
    largest = Counter(hosts).most_common(1)[0][1]
    return _service(light) * max(len(hosts) / concurrency, largest / _PER_HOST)


def _service(sample: Sample) -> float:
    return sample.fetched.service_s or float("nan")


def _ratio(rounds: Sequence[Round], label: str, hosts: Sequence[str], concurrency: int) -> Spread:
    return spread(
        [each[label].fetched.seconds / _lower_bound(each[_LIGHT], hosts, concurrency) for each in rounds]
    )


def _table(
    rounds: list[Round], labels: dict[str, list[str]], ratios: dict[str, Spread], concurrency: int
) -> Table:
    columns = [
        "hosts",
        "jobs",
        "hosts",
        "largest",
        "lower bound s",
        "makespan s",
        "x bound",
        "service ms",
        "light ms",
    ]
    rows = []
    for label, hosts in labels.items():
        sizes = Counter(hosts)
        bounds = spread([_lower_bound(each[_LIGHT], hosts, concurrency) for each in rounds])
        rows.append(
            [
                label,
                f"{len(hosts):,}",
                f"{len(sizes):,}",
                f"{max(sizes.values()):,}",
                shown(bounds, ".2f"),
                spread_of(rounds, label, lambda sample: sample.fetched.seconds, ".2f"),
                shown(ratios[label], ".3f"),
                spread_of(rounds, label, lambda sample: _service(sample) * 1000, ".1f"),
                spread_of(rounds, _LIGHT, lambda sample: _service(sample) * 1000, ".1f"),
            ]
        )
    title = f"{concurrency} in flight in all, {_PER_HOST} for each host, {_PATH}"
    return Table(title, columns, rows)


CASE = Case(
    goal=f"10,000 jobs over 1,000 hosts of very unequal size end within {_BOUND - 1:.0%} of the time that no "
    "schedule can beat, whether they come in random order or sorted by host.",
    run=run,
    requests=10_000,
    repeat=3,
)
