"""The mini world is a preset and a folder of weights: nothing of the package imports it but its own commands."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "syncir_ray"
ROOM = PACKAGE / "miniworld"


def imports(tree: ast.AST, here: Path) -> Iterator[tuple[ast.AST, str]]:
    """Every import of a module, and the whole names that it names, relative ones too."""
    inside = here.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (*(inside[: -node.level] if node.level else ()), *filter(None, [node.module]))
            yield from ((node, ".".join((*base, alias.name))) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield node, ast.unparse(node)


def test_only_the_command_line_imports_the_mini_world_and_only_when_it_is_asked_for():
    files = [path for path in PACKAGE.rglob("*.py") if ROOM not in path.parents]
    assert len(files) > 30
    found = []
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        later = {node for made in ast.walk(tree) if isinstance(made, ast.FunctionDef) for node in ast.walk(made)}
        for node, name in imports(tree, path):
            if "miniworld" in name:
                found.append(path.name)
                assert path == PACKAGE / "cli.py" and node in later, f"{path}: {ast.unparse(node)}"
    assert found  # or this test looks past them


def test_the_test_sees_every_way_to_import():
    lines = (
        "import syncir_ray.miniworld.scene",
        "from syncir_ray import miniworld",
        "from syncir_ray.miniworld import scene",
        "from .. import miniworld",
        "from ..miniworld.scene import Scene",
        "importlib.import_module('syncir_ray.miniworld')",
    )
    for line in lines:
        (found,) = imports(ast.parse(line), PACKAGE / "report" / "build.py")
        assert "syncir_ray.miniworld" in found[1], line
