"""How many query texts are true, before the filter and after."""

from dataclasses import dataclass

VERDICTS = ("right", "incomplete", "wrong")
RATIOS = ("precision_before", "precision_after", "recall", "dropped")


@dataclass(frozen=True)
class Figures:
    """Query texts by verdict. The ratios are (part, whole)."""

    change: str
    """Of which pairs: all, a kind of change that they hold, several (changes) or none."""
    before: dict[str, int]
    """Pairs with a query text, by each of VERDICTS."""
    after: dict[str, int]
    """Kept triplets, by each of VERDICTS."""

    @property
    def texts(self) -> int:
        return sum(self.before.values())

    @property
    def kept(self) -> int:
        return sum(self.after.values())

    @property
    def precision_before(self) -> tuple[int, int]:
        """Right ones of the query texts: label precision without the filter."""
        return self.before["right"], self.texts

    @property
    def precision_after(self) -> tuple[int, int]:
        """Right ones of the kept triplets: label precision, and the precision of the filter."""
        return self.after["right"], self.kept

    @property
    def recall(self) -> tuple[int, int]:
        """Kept ones of the right texts."""
        return self.after["right"], self.before["right"]

    @property
    def dropped(self) -> tuple[int, int]:
        """Dropped ones of the false (incomplete or wrong) texts."""
        false = self.texts - self.before["right"]
        return false - (self.kept - self.after["right"]), false
