"""The console blocks of docs/labs: run in order, compared with what the page shows, and written anew.

    python tools/labs.py                     # every lab: run its commands, rewrite their outputs in place
    python tools/labs.py s0-first-lab        # one of them

A block is fenced by ```console; `$ command` lines are run in an empty folder, each lab in its own, and the lines below
a command are its output. `…` alone stands for lines that are left out, at the end of a line for the rest of it. Words
must be equal. Decimal numbers may differ by 15 % or 0.1, whichever is more; whole numbers not at all; durations, speeds
and sizes in MB freely; p-values as long as they stay on their side of 0.05. Words after the fence change that:

    ```console about      whole numbers may differ by a quarter, or by 3
    ```console varies     the text is a model's: its words and their number are free
    ```console fails      the last command of the block ends with an error

Numbers of the prose have to stand in one of the page's blocks (`unfounded`), so that they are checked, too. What comes
from elsewhere is named: <!-- not from an output: 0.05 -->.

Everything runs in float32, so that processors with and without bfloat16 give the same.
"""

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "labs"
GAP = "…"
WIDTH = 120
RELATIVE, ABSOLUTE = 0.15, 0.1
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
FREE = (
    (re.compile(r"\b(?:\d+ h )?(?:\d+ min )?[\d.,]+ (?:ms|s|min)\b"), "TIME"),
    (re.compile(r"\b[\d.,]+ (?:tokens|rows|steps|examples)/s\b"), "SPEED"),
    (re.compile(r"\b[\d.,]+ (?:kB|MB|GB)\b"), "SIZE"),
)


@dataclass
class Entry:
    """One command and what the page shows of its output; `at` and `end`: the lines of the page that show it."""

    command: str
    shown: list[str]
    at: int
    end: int
    words: frozenset[str] = frozenset()
    may_fail: bool = False


@dataclass
class Lab:
    """What running a page's commands gave; `entries` and `outputs` belong together."""

    entries: list[Entry]
    outputs: list[list[str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


# ---- a page ----------------------------------------------------------------------------------------------------------


def entries(page: str) -> list[Entry]:
    """The commands of a page in order."""
    found: list[Entry] = []
    words: frozenset[str] | None = None  # of the block we are in
    for at, line in enumerate(page.splitlines()):
        if line.startswith("```"):
            if words is not None and "fails" in words and found:
                found[-1].may_fail = True
            words = None if words is not None or line[3:].split()[:1] != ["console"] else frozenset(line.split()[1:])
        elif words is not None and line.startswith("$ "):
            found.append(Entry(line[2:], [], at + 1, at + 1, words))
        elif words is not None and found[-1].command.endswith("\\"):
            found[-1].command = f"{found[-1].command[:-1].rstrip()} {line.strip()}"
            found[-1].at = found[-1].end = at + 1
        elif words is not None:
            found[-1].shown.append(line)
            found[-1].end = at + 1
    return found


def prose(page: str) -> str:
    """A page without its blocks, comments, code and link targets."""
    text = re.sub(r"```.*?```|<!--.*?-->|`[^`\n]*`", " ", page, flags=re.S)
    return re.sub(r"\]\([^)]*\)|\]\[[^\]]*\]|^\[[^\]]+\]: .*$", "] ", text, flags=re.M)


def unfounded(page: str) -> list[str]:
    """Numbers of the prose that no output on the page shows: all with a point, a comma or a per cent sign, and all of
    the tables of the section Results."""
    shown = {plain(number) for entry in entries(page) for line in entry.shown for number in NUMBER.findall(line)}
    named = re.findall(r"<!-- not from an output: (.*?) -->", page, flags=re.S)
    shown |= {plain(number) for group in named for number in NUMBER.findall(group)}
    text = prose(page)
    results = re.search(r"^## Results\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    tables = [line for line in results[1].splitlines() if line.startswith("|")] if results else []
    asked = [found for line in tables for found in NUMBER.findall(line)]
    asked += [
        found[0] for found in NUMBER.finditer(text) if re.search(r"[.,e]", found[0]) or text[found.end() :][:2] == " %"
    ]
    return list(dict.fromkeys(number for number in asked if plain(number) not in shown))


def plain(number: str) -> str:
    return number.lstrip("+-−").replace(",", "")


# ---- running ---------------------------------------------------------------------------------------------------------


def run(command: str, folder: Path) -> tuple[list[str], int]:
    """The lines a command prints in a folder, without the folder's own path and without empty ones, and its exit code.

    `hone …` runs in this process, which has its libraries loaded; what is piped on goes to the shell. `hone … < FILE`
    reads the file.
    """
    first, _, rest = command.partition(" | ")
    first, _, given = first.partition(" < ")
    if not first.startswith("hone "):
        done = _shell(command, folder, "")
        return _lines(done.stdout + done.stderr, folder), done.returncode
    from typer.testing import CliRunner

    from hone.cli import app

    text = (folder / given).read_text(encoding="utf-8") if given else None
    result = CliRunner().invoke(app, shlex.split(first)[1:], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    text = result.output if not rest else _shell(rest, folder, result.output).stdout
    return _lines(text, folder), result.exit_code


def _shell(command: str, folder: Path, given: str) -> "subprocess.CompletedProcess[str]":
    command = re.sub(r"(^|[;&|(] *)python ", rf"\1{shlex.quote(sys.executable)} ", command)
    command = command.replace("~/hone/", f"{shlex.quote(str(ROOT))}/")
    there = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, input=given, capture_output=True, text=True, env=there, check=False
    )


def _lines(text: str, folder: Path) -> list[str]:
    text = text.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "").replace(str(ROOT), "~/hone")
    return [line.rstrip().expandtabs(4) for line in text.splitlines() if line.strip()]


def run_page(page: str, folder: Path) -> Lab:
    """Run all commands in a folder, which has to be the current one, and compare."""
    lab = Lab(entries(page))
    for entry in lab.entries:
        lines, code = run(entry.command, folder)
        lab.outputs.append(lines)
        if bool(code) != entry.may_fail:
            lab.wrong.append(f"$ {entry.command}\n  exit code {code}:\n    " + "\n    ".join(lines[-8:]))
        elif problem := difference(entry, lines):
            lab.wrong.append(f"$ {entry.command}\n  {problem}")
    return lab


# ---- comparing -------------------------------------------------------------------------------------------------------


def difference(entry: Entry, lines: Sequence[str]) -> str | None:
    """What is wrong with the output that the page shows, or None."""
    if "varies" in entry.words:
        return None if lines else "no output"
    at, gap = 0, False
    for shown in (line for line in entry.shown if line.strip()):
        if shown.strip() == GAP:
            gap = True
            continue
        ends = len(lines) if gap else min(at + 1, len(lines))
        found = next((i for i in range(at, ends) if agrees(shown, lines[i], "about" in entry.words)), None)
        if found is None:
            near = difflib.get_close_matches(shown, lines, n=1, cutoff=0)
            return f"shown:   {shown}\n  is now:  {near[0] if near else 'nothing'}"
        at, gap = found + 1, False
    return None if gap or at == len(lines) else f"not shown: {lines[at]}"


def agrees(shown: str, line: str, about: bool = False) -> bool:
    """Equal words, and numbers as near as they have to be."""
    line = as_far_as(shown, line)
    mine, its = _comparable(shown.removesuffix(GAP)), _comparable(line.removesuffix(GAP))
    if skeleton(mine) != skeleton(its):
        return False
    pairs = zip(NUMBER.finditer(mine), NUMBER.finditer(its))
    return all(_near(a[0], b[0], about, mine[: a.start()].endswith("p = ")) for a, b in pairs)


def as_far_as(shown: str, line: str) -> str:
    """A line cut where the shown one is cut: at as many words, and `…` behind."""
    if not shown.endswith(f" {GAP}"):
        return line
    words = re.findall(r"\s*\S+", line)
    return "".join(words[: len(shown.split()) - 1]) + f" {GAP}"


def _comparable(line: str) -> str:
    for pattern, name in FREE:
        line = pattern.sub(name, line)
    return " ".join(line.split())


def skeleton(line: str) -> str:
    return re.sub(r"-{2,}", "--", NUMBER.sub("#", line))


def _near(shown: str, now: str, about: bool, is_p: bool) -> bool:
    a, b = (float(text.replace(",", "").replace("−", "-")) for text in (shown, now))
    if is_p:
        return (a < 0.05) == (b < 0.05)
    if re.fullmatch(r"[-+−]?[\d,]+", shown) and re.fullmatch(r"[-+−]?[\d,]+", now):
        return abs(a - b) <= (max(3, 0.25 * abs(a)) if about else 0)
    return abs(a - b) <= max(RELATIVE * abs(a), 0 if "e" in shown else ABSOLUTE)


# ---- writing anew ----------------------------------------------------------------------------------------------------


def rewritten(page: str, lab: Lab) -> str:
    """The page with the outputs of this run, as much of each as it showed; its prose with the numbers that changed."""
    lines = page.splitlines()
    changed: dict[str, set[str]] = {}
    for entry, output in reversed(list(zip(lab.entries, lab.outputs))):
        new = list(_renewed(entry, output))
        for old, its in zip(entry.shown, new):
            if skeleton(_comparable(old)) == skeleton(_comparable(its)):
                for a, b in zip(NUMBER.findall(_comparable(old)), NUMBER.findall(_comparable(its))):
                    changed.setdefault(plain(a), set()).add(plain(b))
        lines[entry.at : entry.end] = new
    sure = {old: new.pop() for old, new in changed.items() if len(new) == 1 and re.search(r"[.]", old)}
    return _with_numbers("\n".join(lines) + "\n", sure)


def _renewed(entry: Entry, output: list[str]) -> Iterator[str]:
    if not [line for line in entry.shown if line.strip()]:
        yield from (_cut(line) for line in output)
        return
    if "varies" in entry.words:
        whole = entry.shown[-1].strip() != GAP
        yield from (_cut(line) for line in (output if whole else output[: len(entry.shown) - 1]))
        yield from () if whole else [GAP]
        return
    at = 0
    for shown in entry.shown:
        if shown.strip() in ("", GAP):
            yield shown
            continue
        found = _most_alike(shown, output, at)
        if found is None:
            print(f"$ {entry.command}\n  gone: {shown}", file=sys.stderr)
            continue
        yield _cut(as_far_as(shown, output[found]))
        at = found + 1


def _most_alike(shown: str, output: list[str], at: int) -> int | None:
    """The next line of the same words and of numbers most like it, else the one of the most alike words."""
    mine = _comparable(shown.removesuffix(GAP))
    there = [_comparable(as_far_as(shown, line).removesuffix(GAP)) for line in output[at:]]
    same = [line for line in there if skeleton(line) == skeleton(mine)]
    if same:
        return at + there.index(max(same, key=lambda line: difflib.SequenceMatcher(None, mine, line).ratio()))
    near = difflib.get_close_matches(skeleton(mine), [skeleton(line) for line in there], n=1, cutoff=0.5)
    return at + [skeleton(line) for line in there].index(near[0]) if near else None


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 2].rsplit(' ', 1)[0]} {GAP}"


def _with_numbers(page: str, changed: dict[str, str]) -> str:
    parts = re.split(r"(```.*?```|<!--.*?-->|`[^`\n]*`)", page, flags=re.S)

    def new(found: re.Match[str]) -> str:
        sign = found[0][: len(found[0]) - len(found[0].lstrip("+-−"))]
        return sign + changed[plain(found[0])] if plain(found[0]) in changed else found[0]

    return "".join(part if part.startswith(("`", "<!--")) else NUMBER.sub(new, part) for part in parts)


def main(names: Sequence[str]) -> int:
    """Rewrite the labs of these names, or all; what differed by more than it may is printed."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["COLUMNS"] = "100"
    from hone.accelerations import precision

    precision.bf16_pays = lambda device, folder: False
    for path in sorted(PAGES.glob("*.md")):
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HONE_CACHE"] = f"{folder}/.cache"
            os.chdir(folder)
            page = path.read_text(encoding="utf-8")
            lab = run_page(page, Path(folder))
            text = rewritten(page, lab)
            path.write_text(text, encoding="utf-8")
            os.chdir(ROOT)
        print(f"{path.relative_to(ROOT)}: {len(lab.wrong)} outputs had changed", *lab.wrong, sep="\n")
        if found := unfounded(text):
            print(f"numbers of the prose that no output shows: {', '.join(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
