"""Faults by hand, for as long as you like: `python -m tests.faults --runs 100 --seed 0 --to faults.md`."""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from tests.faults.disturb import Result, disturb, draw, table
from tests.faults.faults import FAULTS, SLOW
from tests.faults.world import setting


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--kinds", nargs="*", choices=[*FAULTS, *SLOW], default=[*FAULTS, *SLOW])
    parser.add_argument("--to", type=Path, help="Markdown file, rewritten after each run")
    options = parser.parse_args()
    results: list[Result] = []
    with setting() as made:
        kinds = [kind for kind in options.kinds if kind != "network" or not made.network.apart]
        if made.network.apart:
            print(made.network.apart)
        for number in range(options.first, options.first + options.runs):
            results.append(result := disturb(made, draw(made, options.seed, number, kinds)))
            print(table([result]).splitlines()[2], flush=True)
            if result.wrong:
                print((made.folder / f"run-{number}.log").read_text(), flush=True)
            if options.to:
                options.to.write_text(f"{table(results)}\n\n{summary(results)}\n")
    print(table(results))
    print(summary(results))
    return int(any(result.wrong for result in results))


def summary(results: list[Result]) -> str:
    """By fault: runs, runs as undisturbed, commands, seconds and work done twice in the mean."""
    kinds = defaultdict(list)
    for result in results:
        kinds[result.case.kind].append(result)
    lines = ["| fault | runs | as undisturbed | commands | s | done twice | at most |", "| --- " * 7 + "|"]
    for kind, of in kinds.items():
        commands, seconds, twice = zip(*((r.commands, r.seconds, r.twice) for r in of), strict=True)
        good = sum(not r.wrong for r in of)
        lines.append(
            f"| {kind} | {len(of)} | {good} | {mean(commands):.1f} | {mean(seconds):.0f} | {mean(twice):.1%} "
            f"| {max(twice):.1%} |"
        )
    return "\n".join(lines)


sys.exit(main())
