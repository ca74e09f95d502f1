"""A target of known capacity under a simulated clock: S slots, each request holds one for T seconds."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass

from fetcher.load.knee import Goal, Trial, Verdict, next_step


@dataclass
class SimulatedTarget:
    """``jitter`` spreads service times (0: all alike, 1: from nothing to double); above ``breaks`` it fails."""

    slots: int
    service: float
    jitter: float = 0.0
    seed: int = 0
    breaks: int | None = None
    window: float = 60.0  # in service times

    def trial(self, concurrency: int) -> Trial:
        """Run a closed loop of so many workers: a warm-up, then a window in which answers are counted."""
        chance = random.Random(self.seed * 1_000_003 + concurrency)
        self.seed += 1
        warm_up = self.service * (2 + 2 * concurrency / self.slots)
        end = warm_up + self.service * self.window
        waiting = deque([0.0] * concurrency)
        busy: list[tuple[float, float]] = []  # (when it ends, when it was asked)
        now, answered, failed, latencies = 0.0, 0, 0, []
        while True:
            while waiting and len(busy) < self.slots:
                took = self.service * (1 + self.jitter * chance.uniform(-1, 1))
                heapq.heappush(busy, (now + took, waiting.popleft()))
            now, asked = heapq.heappop(busy)
            if now >= end:
                break
            waiting.append(now)
            if now >= warm_up:
                answered += 1
                failed += self.breaks is not None and concurrency > self.breaks
                latencies.append(now - asked)
        latencies.sort()
        return Trial(
            concurrency=concurrency,
            throughput=(answered - failed) / (end - warm_up),
            error_rate=failed / answered if answered else 0.0,
            p99=latencies[int(len(latencies) * 0.99)] if latencies else None,
        )


def search(measure, goal: Goal) -> tuple[Verdict, list[Trial]]:
    """Search until there is an answer."""
    trials: list[Trial] = []
    while True:
        step = next_step(trials, goal)
        if isinstance(step, Verdict):
            return step, trials
        trials.append(measure(step.concurrency))
