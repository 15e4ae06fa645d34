"""A written benchmark of the mini world, read without the loaders."""

import json
from pathlib import Path
from typing import Any

QUERIES, SEED = 44, 5
CIRCO, CIRR = "CIRCO/annotations/val.json", "CIRR/captions/cap.rc2.val.json"


def annotations(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def truth(folder: Path) -> list[dict]:
    """The lines of scenes.jsonl."""
    return [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
