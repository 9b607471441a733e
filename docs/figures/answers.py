"""Draw what base and tuned wrote for one task of a run's code tasks, side by side, as an SVG.

hone demo && python docs/figures/answers.py out/demo/functions latest_year > docs/figures/answers.svg
"""

import json
import sys
import textwrap
from html import escape
from pathlib import Path

from hone.config.load import load_config
from hone.grading.tasks import Task, tasks_of
from hone.runs import RESOLVED, Run

WIDTH, HEIGHT, COLUMN, GAP, TOP, LINE, ROWS, LONGEST = 880, 258, 430, 20, 56, 18, 7, 56
STYLE = (
    "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1f2328;white-space:pre}"
    ".say{font:14px system-ui,sans-serif}.head{font:600 14px system-ui,sans-serif}"
    ".foot{font:600 15px system-ui,sans-serif}"
    ".box{fill:#f6f8fa;stroke:#d0d7de}.bad{fill:#b42318}.good{fill:#1a7f37}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.box{fill:#151b23;stroke:#3d444d}"
    ".bad{fill:#ff7b72}.good{fill:#3fb950}}"
)


def answer_of(run: Run, model: str, task: str) -> dict[str, object]:
    """The graded answer of `base` or `tuned` to a task."""
    for line in (run.folder / "eval" / f"{model}.code.jsonl").read_text(encoding="utf-8").splitlines():
        if (answer := json.loads(line))["task_id"] == task:
            return dict(answer)
    raise SystemExit(f"{run.folder}: no answer of {model} to {task}")


def column(x: int, model: str, answer: dict[str, object], tests: int) -> str:
    """A box with the first lines of an answer, and whether the tests pass."""
    passed = answer["passed"]
    verdict = f"{tests} of {tests} tests pass" if passed else "fails its tests"
    lines = str(answer["completion"]).strip("\n").splitlines()
    shown = [*lines[: ROWS - 1], "…"] if len(lines) > ROWS else lines
    shown = [line if len(line) <= LONGEST else line[: LONGEST - 1] + "…" for line in shown]
    at = [TOP + 32 + LINE * row for row in range(len(shown))]
    code = "".join(f'<text x="{x + 14}" y="{y}">{escape(line)}</text>' for y, line in zip(at, shown, strict=True))
    mark = f'<tspan class="{"good" if passed else "bad"}">{"✓" if passed else "✗"} {escape(verdict)}</tspan>'
    return (
        f'<text class="head" x="{x}" y="{TOP}">{model} · {mark}</text>'
        f'<rect class="box" x="{x}" y="{TOP + 12}" width="{COLUMN}" height="{LINE * ROWS + 18}" rx="6"/>{code}'
    )


def draw(run: Run, task: Task) -> str:
    """The instruction, both answers, and how many of all tasks base and tuned pass."""
    base, tuned, _ = run.code()
    assert base and tuned, f"{run.folder} has no code tasks"
    before, after = (sum(all(samples) for samples in each.passed.values()) for each in (base, tuned))
    instruction = textwrap.wrap(task.prompt, 118)
    foot = f"Held-out functions that pass their unit tests: {before} of {base.n_tasks} → {after} of {tuned.n_tasks}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(task.prompt)}: what base and tuned answer</title><style>{STYLE}</style>",
        *(f'<text class="say" x="0" y="{18 + 20 * row}">{escape(line)}</text>' for row, line in enumerate(instruction)),
        column(0, "base", answer_of(run, "base", task.task_id), len(task.tests)),
        column(COLUMN + GAP, "tuned", answer_of(run, "tuned", task.task_id), len(task.tests)),
        f'<text class="foot" x="0" y="{HEIGHT - 6}">{escape(foot)}</text></svg>',
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    run = Run(Path(sys.argv[1]))
    config = load_config(run.folder / RESOLVED)
    tasks = {task.task_id: task for task in tasks_of(config.eval.code_tasks, config.where)}
    print(draw(run, tasks[sys.argv[2]]))
