"""A run from the form: a recipe and rows become settings, which are checked as `hone train` checks them, then started.

Nothing that lies in the folder is replaced: neither settings of the same name, nor rows of other content.

>>> sorted(row["name"] for row in recipes())[:2]
['book', 'classify']
"""

import contextlib
import os
import re
import tempfile
from importlib import resources
from itertools import islice
from pathlib import Path

from hone.config.checks import refuse_unknown_task, require_training
from hone.config.dump import flow
from hone.config.explain import recipe_names, recipe_source, recipe_title
from hone.config.load import Unsaved, load_config
from hone.config.recipes.rows import listed, rows_for, with_rows
from hone.config.schema import Config, leaves
from hone.data.inputs import check_files
from hone.data.sources import ROW_SUFFIXES, TEXT_SUFFIXES
from hone.errors import HoneError
from hone.files import disk_errors
from hone.page.work import Trainings, said_by
from hone.serve.refusal import JsonObject

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
DEMO = "demo"
WITHOUT_ROWS = ("code-from-scratch",)  # its tokenizer is made first, in a terminal
HELD_OUT_PERCENT = 10  # of rows that come without others to measure on
MOST_FILES = 200  # that are proposed
MOST_FOLDERS = 2000  # that are looked into
DEPTH = 3  # of the folder, in which rows are looked for
ELSEWHERE = "hone ui FOLDER, with a folder of yours"


def recipes() -> list[JsonObject]:
    """The demo, then the recipes of `hone init`; rows: whether it brings some to try it with."""
    demo = {"name": DEMO, "title": "the bundled model learns small Python functions: two minutes, no network"}
    found = [{"name": name, "title": recipe_title(name)} for name in recipe_names()]
    return [{**one, "rows": one["name"] not in WITHOUT_ROWS} for one in (demo, *found)]


def data_files(folder: Path) -> list[str]:
    """What may hold rows below the folder, by name; what runs and downloads have written is left out."""
    found: list[str] = []
    for place, folders, files in islice(os.walk(folder), MOST_FOLDERS):
        depth = len(Path(place).relative_to(folder).parts)
        own = "status.json" in files  # a run
        folders[:] = [] if own or depth >= DEPTH else sorted(one for one in folders if not one.startswith("."))
        names = [] if own else sorted(name for name in files if _holds_rows(name))
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in names]
        if len(found) >= MOST_FILES:
            break
    return found[:MOST_FILES]


def _holds_rows(name: str) -> bool:
    plain = name.lower().removesuffix(".gz")
    return not name.startswith(".") and plain.endswith((*ROW_SUFFIXES, *TEXT_SUFFIXES, ".bin"))


def free_name(folder: Path, wanted: str) -> str:
    """A name that neither settings nor a run has.

    >>> free_name(Path("/nowhere"), "demo")
    'demo'
    """
    settings_path(folder, wanted)
    names = (wanted, *(f"{wanted}-{n}" for n in range(2, 1000)))
    taken = [folder, folder / "runs"]
    return next(name for name in names if not any(p.exists() for t in taken for p in (t / name, t / f"{name}.yaml")))


def draft(folder: Path, recipe: str, name: str, train: str, held_out: str) -> JsonObject:
    """Settings to begin with, after a recipe.

    Args:
        train, held_out: files of rows, relative to the folder. Without them the recipe's own are written beside the
            settings, in NAME-rows.

    Raises:
        HoneError: no such recipe, a name that is none, or other rows lie where these would be written.
    """
    settings_path(folder, name)
    if recipe == DEMO:
        files = list((resources.files("hone") / "assets" / "demo").iterdir())
        text = next(one for one in files if one.name == "demo.yaml").read_text(encoding="utf-8")
        rows = {one.name: one.read_text(encoding="utf-8") for one in files if one.name.endswith(".jsonl") and not train}
    else:
        text = recipe_source(recipe)
        rows = {} if train or recipe in WITHOUT_ROWS else rows_for(recipe)
        text = with_rows(text, rows)
    said = _write_rows(folder / f"{name}-rows", rows)
    for file in {file.partition("/")[0] for file in rows}:
        text = re.sub(rf"^( +\w+: ){re.escape(file)}(/?)$", rf"\1{name}-rows/{file}\2", text, flags=re.M)
    if train:
        text = _with_own_rows(text, train, held_out)
    output = name if folder.name == "runs" else f"runs/{name}"
    return {"text": with_value(text, "output_dir", output), "said": said}


def _write_rows(place: Path, rows: dict[str, str]) -> str:
    """Each file, unless the same is there; what was written, in words."""
    for file, text in rows.items():
        path = place / file
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise HoneError("other rows lie here already", where=str(path), fix="give the run another name")
    with disk_errors(place, ELSEWHERE):
        for file, text in rows.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError), (place / file).open("x", encoding="utf-8") as out:
                out.write(text)
    return f"Rows to try it with are in {place}: {listed(rows)}" if rows else ""


def _with_own_rows(text: str, train: str, held_out: str) -> str:
    """Settings that name these files; what was about the recipe's own rows is gone, its remarks too."""
    own = ("dataset_name", "train_file", "validation_file", "validation_split_percentage", "code_tasks")
    text = re.sub(rf"(^  #.*\n)*^  ({'|'.join(own)}): .*\n", "", text, flags=re.M)
    text = re.sub(r"^\w+:\n\n(?=\w|\Z)", "", text, flags=re.M)  # a section that is empty now
    held = ("validation_file", held_out) if held_out else ("validation_split_percentage", HELD_OUT_PERCENT)
    return with_value(with_value(text, *held), "train_file", train)


def with_value(text: str, leaf: str, value: object) -> str:
    """Settings with another value of one key.

    >>> with_value("train:\\n  seed: 1\\n", "seed", 2), with_value("train:\\n  seed: 1\\n", "optim", "adamw")
    ('train:\\n  seed: 2\\n', 'train:\\n  optim: adamw\\n  seed: 1\\n')
    """
    line = re.compile(rf"^  {leaf}:.*$", re.M)
    if line.search(text):
        return line.sub(lambda found: f"  {leaf}: {flow(value)}", text, count=1)
    head = re.compile(rf"^{leaves()[leaf]}:[^\S\n]*\n", re.M)
    if head.search(text):
        return head.sub(lambda found: f"{found[0]}  {leaf}: {flow(value)}\n", text, count=1)
    return f"{text.rstrip()}\n\n{leaves()[leaf]}:\n  {leaf}: {flow(value)}\n"


def settings_path(folder: Path, name: str) -> Path:
    """Where settings of this name are written: in the folder itself.

    Raises:
        HoneError: it is not a name that a file can have everywhere.
    """
    if not NAME.fullmatch(name):
        fix = "letters, digits, - and _ and ., beginning with a letter or a digit; at most 60"
        raise HoneError(f"'{name[:60]}' is not a name for a run", fix=fix)
    return folder / f"{name}.yaml"


# ---- checked, planned, started ---------------------------------------------------------------------------------------


def checked(folder: Path, name: str, text: str) -> JsonObject:
    """What `hone train` would say of the settings, before it loads anything: its notes, the run, the command.

    Raises:
        HoneError: what it would refuse, with lines.
    """
    path = settings_path(folder, name)
    config = _config(path, text)
    _run_id(folder, Path(config.output.output_dir), config.where("output_dir"))
    return {"notes": config.notices, "command": command(folder, path)}


def command(folder: Path, path: Path) -> str:
    """What to type for the same."""
    return f"cd {_typed(str(folder))}\nhone train {path.name}"


def _typed(text: str) -> str:
    return text if re.fullmatch(r"[\w./~+-]+", text) else "'" + text.replace("'", "'\\''") + "'"


def _config(path: Path, text: str) -> Config:
    config = load_config(Unsaved(path, text))
    refuse_unknown_task(config)
    require_training(config)
    check_files(config.data)
    return config


def _run_id(folder: Path, output: Path, where: str | None) -> str:
    """The run's name on the page."""
    if not output.is_relative_to(folder) or output == folder:
        raise HoneError(
            f"output_dir ({output}) lies outside the folder of this page, where it would not be seen",
            where=where,
            fix=f"write a folder below {folder}: output_dir: runs/my",
        )
    return output.relative_to(folder).as_posix()


def planned(folder: Path, name: str, text: str) -> JsonObject:
    """What `hone plan` says; fits: whether it would fit into this machine.

    Raises:
        HoneError: as `checked`; or the plan cannot be made, in its words.
    """
    path = settings_path(folder, name)
    _config(path, text)
    with disk_errors(folder, ELSEWHERE):
        number, draft_path = tempfile.mkstemp(suffix=".yaml", prefix=f".{name}-", dir=folder)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
            code, out, problem = said_by(["plan", draft_path], folder)
        finally:
            Path(draft_path).unlink(missing_ok=True)
    if code not in (0, 3):
        raise HoneError(problem.replace(draft_path, path.name) or "the plan cannot be made")
    return {"text": out.replace(draft_path, path.name), "fits": code == 0}


def begin(folder: Path, trainings: Trainings, name: str, text: str) -> JsonObject:
    """Write the settings and start `hone train` with them, as a process that outlives this server.

    Raises:
        HoneError: as `checked`; or other settings have this name.
    """
    path = settings_path(folder, name)
    config = _config(path, text)
    run = _run_id(folder, Path(config.output.output_dir), config.where("output_dir"))
    written = True
    with disk_errors(path, ELSEWHERE):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            if path.is_symlink() or not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
                fix = "give the run another name"
                raise HoneError("exists already, with other settings", where=str(path), fix=fix) from None
            written = False
    trainings.start(run, ["train", path.name], folder, written=path if written else None)
    return {"run": run, "command": command(folder, path)}
