"""Who may import whom, at module level or inside functions: the direction of the layers, and what stays light."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hone"
ALLOWED = {  # package -> packages of ours that it may import
    "config": {"config"},
    "data": {"data", "config"},
    "models": {"models", "config", "data.tokenizer"},
    "evaluation": {"evaluation", "models", "data", "config", "inference", "training.loss"},
    "inference": {"inference", "models", "data", "config"},
    "report": {
        "report",
        "config",
        *(f"evaluation.{n}" for n in ("columns", "generation_quality", "pass_at_k", "statistics")),
    },
    "training": {"training", "report", "evaluation", "inference", "models", "data", "config"},
}
BASE = {
    "errors",
    "files",
    "hub",
    "runs",
    "machine",
    "shipped",
}  # may be imported by all but config (which takes errors and files)
LIGHT = [
    "config",
    "report",
    "cli.py",
    "commands",
    "errors.py",
    "files.py",
    "tables.py",
    "runs.py",
    "__init__.py",
    "doctor",
    "machine.py",
]
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "scipy", "sklearn", "pyarrow"}


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_direction_of_imports(package: str) -> None:
    for path in (SOURCE / package).rglob("*.py"):
        for name in imported(path):
            if not name.startswith("hone."):
                continue
            inner = name.removeprefix("hone.")
            allowed = ALLOWED[package] | (BASE if package != "config" else {"errors", "files"})
            assert inner.split(".")[0] in allowed or inner in allowed, f"{path.relative_to(SOURCE)} imports {name}"


def test_light_modules_import_nothing_heavy_at_the_top() -> None:
    for entry in LIGHT:
        paths = (SOURCE / entry).rglob("*.py") if (SOURCE / entry).is_dir() else [SOURCE / entry]
        for path in paths:
            heavy = {name.split(".")[0] for name in imported(path, top_level_only=True)} & HEAVY
            assert not heavy, f"{path.relative_to(SOURCE)} imports {heavy}"


def test_readme_map_names_every_package_and_module() -> None:
    readme = (SOURCE.parents[1] / "README.md").read_text(encoding="utf-8")
    for path in [p for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]:
        if not path.name.startswith("__"):
            assert f"`{path.name}{'/' if path.is_dir() else ''}`" in readme, f"README's map lacks {path.name}"
