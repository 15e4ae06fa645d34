"""One disturbed run: a fault strikes at a drawn moment, the command is given again until it ends, and what came of
it is compared with the undisturbed run."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired

import numpy as np

from syncir_ray import record, storage
from syncir_ray.ledger import ledger
from syncir_ray.run import Run
from tests import s3_server, world
from tests.faults.faults import FAULTS, SLOW
from tests.faults.world import FIRST, KEYS, ORDER, STAGES, Setting

# Seconds of one command, beyond which it hangs. Without a fault it takes 15 to 40 on an idle machine; but what was
# asked of a host that was then cut off, waits for five minutes: so often gRPC looks after a silent connection.
LIMIT = 600.0
NOISE = ("Traceback", "Warning", "core_worker.cc", "state-dump")
IN_HAND = 16  # prompts: two units an actor, whose process outlives the driver by a moment
COMMANDS = 6  # more of them and a run does not go on


@dataclass(frozen=True)
class Case:
    """A run and what happens to it: `calls` of the stage's model are seen, then `delay` seconds go by."""

    number: int
    kind: str
    place: str
    stage: str
    calls: int
    delay: float
    seed: str
    committed: bool
    """Whether the stage has committed a unit before; of a driver's death alone."""


@dataclass(frozen=True)
class Result:
    case: Case
    did: str
    """What the fault did."""
    commands: int
    seconds: float
    twice: float
    """Work done more than once, as a share of the work needed."""
    wrong: list[str]
    """What is not as it should be."""


def draw(made: Setting, seed: int, number: int, kinds: list[str]) -> Case:
    """The case of that number: the kinds take turns, all else is drawn."""
    name = f"{seed}-{number}"
    dice, kind = random.Random(name), kinds[number % len(kinds)]
    _, places = (FAULTS | SLOW)[kind]
    stage, place = dice.choice(STAGES), dice.choice(places)
    committed = kind == "driver" and dice.random() < 0.5
    calls = dice.randint(1, max(1, made.calls[stage] - 1))
    delay = 0.0 if committed else dice.uniform(0, 0.3)
    return Case(number, kind, place, stage, calls, delay, name, committed)


def disturb(made: Setting, case: Case) -> Result:
    fault, _ = (FAULTS | SLOW)[case.kind]
    dice, log = random.Random(case.seed + "-fault"), made.folder / f"run-{case.number}.log"
    made.forget()
    out = made.begin(case.place, case.stage, f"run-{case.number}")
    run, kept = Run(out), {}
    answered, committed = 0, 0  # prompts, when the driver had died
    start, did, wrong, commands = time.monotonic(), "", [], 0
    for commands in range(1, COMMANDS + 1):
        with made.start(case.place, out, log) as process:
            try:
                if commands == 1 and _under_way(made, case, process, run):
                    did = fault(made, process, case.stage, dice)
                    answered = made.asked()[0]["queries"]
                code = process.wait(timeout=LIMIT)
            except TimeoutExpired:
                wrong.append(f"command {commands} hangs")
                code = None
            finally:
                process.kill()
        if not code and code is not None:
            break
        if not kept:
            kept, committed = stamps(run), _committed(run, "queries")
        if not did:
            wrong.append("ended before the fault")
    else:
        wrong.append(f"not finished by {COMMANDS} commands")
    seconds = time.monotonic() - start
    made.cluster.mend()
    wrong += told(log) + differences(made, run, case.place)
    now = stamps(run)
    wrong += [f"{name}: written again" for name, stamp in kept.items() if now.get(name) != stamp]
    needed = {stage: made.needed[stage] for stage in STAGES[STAGES.index(case.stage) :]}
    items, _ = made.asked()
    again = items["queries"] - made.needed["queries"]
    if (case.kind, case.stage) == ("driver", "queries") and again > answered - committed + IN_HAND:
        wrong.append(f"{answered} prompts were asked and {committed} committed, and {again} asked again")
    over = sum(items[stage] - needed[stage] for stage in needed)
    if over < 0:
        wrong.append("less was computed than needed")
    return Result(case, did or "nothing", commands, seconds, over / sum(needed.values()), wrong)


def _under_way(made: Setting, case: Case, process, run: Run) -> bool:
    """Wait for the moment; whether it came before the command's end."""
    end = time.monotonic() + LIMIT
    while made.asked()[1][case.stage] < case.calls or (case.committed and not _committed(run, case.stage)):
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.02)
    time.sleep(case.delay)
    return process.poll() is None


def _committed(run: Run, stage: str) -> int:
    """How many items of a stage are committed; of the queries, prompts: units without one are at once."""
    if stage != "queries":
        return sum(unit.count for unit in run.units(FIRST[stage]))
    prompts = run.seal("prompts")
    return sum(u.count for u in run.units("queries") if prompts and u.start < prompts.facts["prompts"])


def stamps(run: Run) -> dict[str, object]:
    """Each committed unit of the tables, and what tells whether it was written again."""
    found: dict[str, object] = {}
    for name in [f"{table}/{unit.name}" for table in ORDER for unit in run.units(table)]:
        if storage.is_s3(address := run.at(name)):
            bucket, _, key = address.removeprefix("s3://").partition("/")
            found[name] = s3_server.client(dict(os.environ)).head_object(Bucket=bucket, Key=key)["LastModified"]
        else:
            found[name] = Path(address).stat().st_mtime_ns
    return found


def told(log: Path) -> list[str]:
    """What a user should not have seen: a traceback, or Ray's own words."""
    lines = log.read_text(errors="replace").splitlines()
    return [f"printed: {line[:200]}" for line in lines if any(word in line for word in NOISE)]


def differences(made: Setting, run: Run, place: str) -> list[str]:
    """How a finished run differs from the undisturbed one."""
    if missing := [table for table in ORDER if not run.seal(table)]:
        return [f"not sealed: {', '.join(missing)}"]
    wrong = []
    for line in ledger(run, record.need(run)["config"]):
        if not line.sums or line.missing or not line.sealed:
            wrong.append(f"the ledger of {line.stage} does not sum")
    for table, key in KEYS.items():
        ids = np.sort(run.read_all(table, [key])[key].to_numpy())
        if len(np.unique(ids)) != len(ids):
            wrong.append(f"{table}: ids twice")
        if not np.array_equal(np.unique(ids), np.arange(made.undisturbed[place].need(table).rows)):
            wrong.append(f"{table}: ids lost")
    wrong += [f"{table}: other rows" for table in ORDER if world.rows(run, table) != made.rows[table]]
    if left := [entry.name for entry in storage.list_files(run.at("lease"))]:
        wrong.append(f"leases left behind: {', '.join(left)}")
    return wrong


def table(results: list[Result]) -> str:
    """Results as a Markdown table, and what they come to."""
    lines = ["| run | fault | stage | place | commands | s | done twice | |", "| --- " * 8 + "|"]
    for r in results:
        c, verdict = r.case, "; ".join(r.wrong) or "as undisturbed"
        lines.append(
            f"| {c.number} | {r.did} | {c.stage} | {c.place} | {r.commands} | {r.seconds:.0f} | {r.twice:.1%} "
            f"| {verdict} |"
        )
    good = sum(not r.wrong for r in results)
    twice = np.mean([r.twice for r in results]) if results else 0.0
    lines.append(f"\n{good} of {len(results)} runs equal the undisturbed one; done twice: {twice:.1%} in the mean")
    return "\n".join(lines)
