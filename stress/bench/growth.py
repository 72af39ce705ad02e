"""Measures the cost of `get` and `set` for 100 to 10,000,000 entries, compared with a `dict`.

The needles are up to 100,000 of the keys, in random order. Beyond the size of the processor's caches, all figures
include the latency of memory.
"""

import functools
import random

import harness
import subjects as s
from harness import call_with_key, call_with_pair, own_code

MOST_NEEDLES = 100_000


def main(argv=None):
    options = harness.parse_options(__doc__, argv)
    report = harness.Report("growth", options)
    scale = options.scale
    names = (s.DICT, s.OURS, s.OURS_LRU, s.CACHEBOX)
    rows = []
    entries = 100
    while entries <= scale.largest:
        keys = [10**6 + number for number in range(entries)]
        dice = random.Random(entries)
        needles = [key + 0 for key in dice.sample(keys, min(entries, MOST_NEEDLES))]
        needles = [key + 1 - 1 for key in needles]
        laps = max(1, 10_000 // len(needles))
        made = {name: subject.fill(keys) for name, subject in s.make(2 * entries, *names).items()}
        rounds = scale.rounds if entries < 10**5 else max(1, scale.rounds // 5)
        for row, loop, method in (("get, hit", call_with_key, "get"), ("set, present", call_with_pair, "set")):
            runs = {
                name: functools.partial(own_code(loop), getattr(subject, method), needles, laps)
                for name, subject in made.items()
            }
            rows.append((row, entries, harness.take_turns(runs, rounds)))
        entries *= 10
    for wanted in ("get, hit", "set, present"):
        for row, entries, figures in rows:
            if row == wanted:
                report.add(f"{row}, {entries:,} entries", figures)
    report.table(s.DICT)
    report.close()


if __name__ == "__main__":
    main()
