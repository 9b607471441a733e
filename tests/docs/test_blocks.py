"""Every shell and Python block of README and the guides runs, in order, in a folder that holds what the pages name.

`hone-base` is a tiny random model there, so that a page takes seconds; the labs run on the real one (test_labs.py).
`<!-- not run: why -->` before a block leaves it out: what needs a GPU, the hub, or minutes.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from markdown_pages import DOCS, ROOT
from typer.main import get_command
from typer.testing import CliRunner

import hone
from hone.cli import app
from hone.config.explain import recipe_text

ELSEWHERE = ("log.md", "python.md")  # history; what that page prints is looked at in test_commands.py
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if page.name not in ELSEWHERE and page.parent.name != "labs"),
]
# What installs, or reaches the network, or only looks round: not run. That it is written rightly is for the reader.
OTHERS = {
    *(".", "apt-get", "cat", "cd", "curl", "export", "git", "head", "hf", "ls", "nvidia-smi", "pip", "pipx", "python"),
    *("python3", "rsync", "scp", "source", "ssh", "sudo", "tail", "time", "uv", "uvx", "xargs"),
}
NOT_RUN = {
    "hone convert 124M gpt2": "needs OpenAI's files",
    "hone eval runs/my --tasks arc_easy --limit 100": "needs lm-eval and the hub",
    "hone compare a_results.jsonl b_results.jsonl": "needs two graded files",
    "hone launch slurm my.yaml --gpus 1 --seeds 6 --submit": "needs Slurm: tests/test_slurm.py",
    "hone repeat my.yaml --seeds 6 --jobs 2": "six processes: tests/training/test_search.py",
    "hone search my.yaml learning_rate=1e-5..1e-3 --trials 12": "twelve trainings: tests/training/test_search.py",
}
# What takes several processes is checked here, and trained in the tests of its own.
INSTEAD = {"hone train my.yaml nproc_per_node=4": "hone check my.yaml nproc_per_node=4"}  # tests/processes
GROUP: Any = get_command(app)
ONLY_PARSED = {
    "serve": "answers until it is stopped: tests/serve",
    "ui": "likewise: tests/page",
    "hub": "needs the hub: tests/convert",
}
# What the commands of a page write: it must not be there before them.
MADE = {
    "init.md": ["my.yaml", "train.jsonl", "eval.jsonl", "tasks.jsonl"],
    "predict.md": ["runs/my"],
    "repeat.md": ["runs/seeds"],
    "train.md": ["runs/b"],
}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


class Block(NamedTuple):
    line: int
    language: str
    text: str
    not_run: str | None


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, each with the reason not to run it that stands before it."""
    found = re.finditer(r"(?:<!-- not run: ([^>]+) -->\n+)?^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [Block(text[: one.start()].count("\n") + 1, one[2], one[3], one[1]) for one in found]


def commands(block: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, lines that end in a backslash joined, comments left out."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def runnable(page: Path) -> list[Block]:
    return [one for one in blocks(page.read_text(encoding="utf-8")) if one.language in ("bash", "sh", "python")]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A folder with a tiny `hone-base`, rows of each kind, and runs of each kind."""
    place = tmp_path_factory.mktemp("pages")
    for name in ("hone-base", "my-model", "gpt2", "distilgpt2", "models/qwen"):
        shutil.copytree(model_folder, place / name)
    functions = [{"text": f"def f{i}(a, b):\n    return a + b + {i}\n"} for i in range(24)]
    instructions = [
        {"instruction": f"Write a function f{i}.", "output": f"def f{i}():\n    return {i}\n"} for i in range(24)
    ]
    labels = [{"text": f"it is {word} {i}", "label": word} for i in range(12) for word in ("good", "bad")]
    tests = [
        {"task_id": f"f{i}", "prompt": row["instruction"], "entry_point": f"f{i}", "tests": [f"assert f{i}() == {i}"]}
        | {"reference": row["output"]}
        for i, row in enumerate(instructions[:3])
    ]
    samples = [{"task_id": f"f{i}", "completion": f"def f{i}():\n    return 1\n"} for i in range(3) for _ in range(10)]
    rows = dict.fromkeys(("rows", "train", "data"), instructions[:16])
    rows |= dict.fromkeys(("more", "eval", "general"), instructions[16:])
    rows |= {"labels": labels, "tasks": tests, "samples": samples}
    for name, given in rows.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    (place / "rows.csv").write_text('instruction,output\n"Say one","1"\n"Say two","2"\n' * 6, encoding="utf-8")
    (place / "book.txt").write_text("Alice was beginning to get very tired of it all.\n\n" * 60, encoding="utf-8")
    for name in ("questions.txt", "prompts.txt", "texts.txt", "reviews.txt"):
        (place / name).write_text("Write a function one().\nWrite a function two().\n", encoding="utf-8")
    (place / "code").mkdir()
    (place / "code" / "functions.py").write_text("".join(row["text"] for row in functions) * 8, encoding="utf-8")
    (place / "my.yaml").write_text(
        "model:\n  model_name_or_path: hone-base\ndata:\n  train_file: rows.jsonl\n  validation_file: more.jsonl\n"
        "  max_length: 128\ntrain:\n  max_steps: 2\noutput:\n  output_dir: runs/from-yaml\n",
        encoding="utf-8",
    )
    (place / "code.yaml").write_text(
        f"files: code\ntokenizer_name_or_path: hone-base\nmax_characters: {10**7}\nvalidation_percentage: 0\n",
        encoding="utf-8",
    )
    (place / "qwen2-lora-cpu.yaml").write_text(recipe_text("qwen2-lora-cpu"), encoding="utf-8")
    demo = place / "out" / "demo"
    demo.mkdir(parents=True)
    shutil.copy(place / "rows.jsonl", demo)
    shutil.copy(place / "more.jsonl", demo)
    text = (place / "my.yaml").read_text(encoding="utf-8").replace("hone-base", str(place / "hone-base"))
    (demo / "demo.yaml").write_text(text.replace("runs/from-yaml", "functions"), encoding="utf-8")
    made = {"model_name_or_path": str(place / "hone-base"), "max_steps": 1, "max_length": 128, "max_new_tokens": 16}
    written = {**made, "train_file": str(place / "rows.jsonl"), "validation_file": str(place / "more.jsonl")}
    for name, more in {
        "my": written,
        "other": {**written, "learning_rate": 1e-3},
        "lora": {**written, "method": {"method": "lora"}},
        "labels": {**made, "train_file": str(place / "labels.jsonl"), "method": {"task": "classification"}},
    }.items():
        hone.train(hone.load_config({**more, "output_dir": str(place / "runs" / name)}))
    for copy, name in {"a": "my", "b": "other"}.items():
        shutil.copytree(place / "runs" / name, place / "runs" / copy)
    hone.repeat(hone.load_config({**written, "output_dir": str(place / "runs" / "seeds")}), [0, 1])
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page)], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_blocks_run(page: Path, furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks build on each other; the lines of a command's page stand each for itself."""
    places = (tmp_path / f"place-{number}" for number in count())
    alone = page.parent.name == "files" and page.name != "tokenizer.md"  # measures what it made
    names: dict[str, Any] = {"__name__": "__main__"}
    fresh(next(places), page, furnished, monkeypatch)
    for block in runnable(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.not_run:
            continue
        if block.language == "python":
            exec(compile(block.text, where, "exec"), names)
            continue
        for words in commands(block.text):
            run(words, where)
            if alone:
                fresh(next(places), page, furnished, monkeypatch)


def fresh(place: Path, page: Path, furnished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in: with all that pages name, or, for the README, with nothing but a tiny model."""
    if page.name == "README.md":
        shutil.copytree(furnished / "hone-base", place / "hone-base")
    else:
        shutil.copytree(furnished, place)
    for made in MADE.get(page.name, ()):
        shutil.rmtree(place / made) if (place / made).is_dir() else (place / made).unlink()
    if page.name == "predict.md":
        shutil.copytree(place / "runs" / "labels", place / "runs" / "my")
    monkeypatch.chdir(place)


def run(words: list[str], where: str) -> None:
    if words[0] == "hone" and ONLY_PARSED.keys() & {*words[1:]}:
        GROUP.commands[words[1]].make_context(words[1], list(words[2:]))
    elif words[0] == "hone" and (line := shlex.join(words)) not in NOT_RUN:
        given = ["runs/my" if word == "RUN" else word for word in shlex.split(INSTEAD.get(line, line))[1:]]
        result = CliRunner().invoke(app, given, catch_exceptions=False, input="hello\n/exit\n")
        assert result.exit_code == 0, f"{where}: {shlex.join(words)}\n{result.output}"
    elif words[0] == "make":
        assert set(words[1:]) <= TARGETS | {word for word in words if "=" in word}, where
    elif words[0] != "hone":
        assert words[0] in OTHERS, f"{where}: what does {words[0]} need?"


def test_blocks_and_reasons_are_found() -> None:
    text = (
        "a\n```bash\nhone doctor   # look\nhone train a.yaml \\\n  b=1\n```\n"
        "<!-- not run: needs a GPU -->\n\n```python\nx = 1\n```\n"
    )
    first, second = blocks(text)
    assert (first.line, first.language, first.not_run) == (2, "bash", None)
    assert list(commands(first.text)) == [["hone", "doctor"], ["hone", "train", "a.yaml", "b=1"]]
    assert (second.language, second.text, second.not_run) == ("python", "x = 1\n", "needs a GPU")
