"""The last operator of every stage: a unit's items become its object of the run, whole, and a ledger line."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from syncir_ray.parts import SPENT
from syncir_ray.run import Counts, Run, Unit, count
from syncir_ray.stages.account import MODEL, UNIT

LINES = pa.schema([("start", pa.int64()), ("count", pa.int64()), ("counts", pa.string()), ("made", pa.string())])

# (run, unit, computed items if any, the unit's earlier table when it is done again) -> the unit's whole table
Finish = Callable[[Run, Unit, pa.Table | None, pa.Table | None], pa.Table]


@dataclass(frozen=True)
class Commit:
    """Items of one or more whole units -> one row a unit: start, count, and as JSON the counts of the unit and of
    what was made just now.

    Raises:
        RuntimeError: the items of a unit did not arrive together; nothing of it is written.
    """

    run: Run
    table: str
    finish: Finish
    again: bool = False
    """The units are committed already and only some of their rows are done again."""

    def __call__(self, items: pa.Table) -> pa.Table:
        lines = []
        for start in pc.unique(items["unit_start"]).to_pylist():
            rows = items.filter(pc.equal(items["unit_start"], start))
            unit = Unit(start, rows["unit_count"][0].as_py())
            if rows.num_rows != rows["unit_items"][0].as_py():
                raise RuntimeError(f"{self.table} {unit.name}: its items arrived apart")
            counts, made = (json.dumps(asdict(each)) for each in self.one(unit, rows))
            lines.append({"start": unit.start, "count": unit.count, "counts": counts, "made": made})
        return pa.Table.from_pylist(lines, LINES)

    def nothing(self, unit: Unit) -> Counts:
        """Commit a unit of which no id had to be worked on."""
        return self.run.write(self.table, unit, self.finish(self.run, unit, None, None))

    def one(self, unit: Unit, rows: pa.Table) -> tuple[Counts, Counts]:
        """Commit one unit; its `Counts`, and those of what was made just now."""
        spent = {name: pc.sum(rows[name]).as_py() or 0 for name in SPENT}
        items = rows.drop_columns([f.name for f in (*UNIT, *MODEL)])
        before = self.run.read(self.table, unit) if self.again else None
        table = self.finish(self.run, unit, items, before)
        if before is not None:
            earlier = self.run.counts(self.table, unit)
            spent = {name: value + getattr(earlier, name) for name, value in spent.items()}
        counts = self.run.write(self.table, unit, table, count(table, **spent))
        return counts, counts if before is None else counts.since(earlier)
