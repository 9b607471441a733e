"""Who may import whom, at module level or inside functions: the direction of the layers, and what stays light."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hone"
# From the bottom up: a package or module imports from those before it, and from itself.
ORDER = [
    *("errors", "files", "manifest", "publish", "hub", "bundled", "hardware", "imports", "processes", "progress"),
    *("results", "show", "cache"),
    *("slurm", "config", "runs", "data", "loss", "statistics", "models", "accelerations", "inference", "grading"),
    *(
        "metrics",
        "tasks",
        "evaluation",
        "convert",
        "report",
        "serve",
        "training",
        "planning",
        "corpus",
        "doctor",
        "doctor_group",
        "verify",
        "demo",
        "tables",
        "page",
        "notebook",
    ),
    *("__init__", "commands", "cli"),
    "__main__",
]
LIGHT = [
    *("errors", "files", "manifest", "publish", "hub", "bundled", "hardware", "imports", "processes", "progress"),
    *("results", "show", "cache"),
    *(
        "slurm",
        "config",
        "runs",
        "report",
        "doctor",
        "doctor_group",
        "verify",
        "tables",
        "page",
        "notebook",
        "commands",
        "cli",
        "__init__",
        "__main__",
    ),
]
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "scipy", "sklearn", "pyarrow", "pandas"}


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules a file imports; `from hone import x` counts as hone.x where x is a module of ours."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "hone":
            names |= {f"hone.{alias.name}" for alias in node.names if room_exists(alias.name)} or {"hone.__init__"}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room_exists(name: str) -> bool:
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()


def rooms() -> list[Path]:
    return sorted(p for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file())


def files(room: str) -> list[Path]:
    return sorted((SOURCE / room).rglob("*.py")) if (SOURCE / room).is_dir() else [SOURCE / f"{room}.py"]


@pytest.mark.parametrize("room", [path.stem for path in rooms()])
def test_imports_go_down_the_layers_only(room: str) -> None:
    below = set(ORDER[: ORDER.index(room) + 1])
    for path in files(room):
        for name in imported(path):
            if name == "hone" or name.startswith("hone."):
                other = name.split(".")[1] if "." in name else "__init__"
                assert other in below, f"{path.relative_to(SOURCE)} imports {name}, which comes after it in ORDER"


def test_light_modules_import_nothing_heavy_at_the_top() -> None:
    for room in LIGHT:
        for path in files(room) if room_exists(room) else []:
            heavy = {name.split(".")[0] for name in imported(path, top_level_only=True)} & HEAVY
            assert not heavy, f"{path.relative_to(SOURCE)} imports {heavy}"


def test_grading_serves_as_a_reward_without_evaluation_or_training() -> None:
    """Nor does anything that it imports at the top, or anything that this imports."""
    found: set[str] = set()
    left = {"hone.grading.grade", "hone.grading.ask"}
    while left:
        found |= left
        left = {name for module in left for name in imported_with_packages(module)} - found
    assert {"hone.grading", "hone.inference.engine", "hone.models.load"} <= found
    assert not {"evaluation", "training", "tasks", "report"} & {name.split(".")[1] for name in found if "." in name}


def imported_with_packages(module: str) -> set[str]:
    """The modules of ours that one imports at its top, and the packages they are in."""
    path = SOURCE.parent.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = {name for name in imported(path, top_level_only=True) if name.split(".")[0] == "hone"}
    parents = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 1)}
    return {name for name in names | parents if not name.endswith("__init__")}


def test_map_names_every_package_and_module() -> None:
    architecture = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in rooms():
        if not path.name.startswith("__"):
            assert f"`{path.name}{'/' if path.is_dir() else ''}`" in architecture, path.name
