"""Draw workflow.svg (the commands in their order) and decision.svg (goal, recipe, machine) beside this file.

python docs/figures/diagrams.py

Both are drawn for a column of 520 pixels: at 400 their smallest letters are ten pixels high.
"""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH = 520
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#57606a;text-anchor:middle}.small{font-size:13px}.left{text-anchor:start}"
    ".name{font-weight:600;fill:#1f2328}.box{fill:#f6f8fa;stroke:#afb8c1}.main{fill:#dafbe1;stroke:#1a7f37}"
    ".arrow{stroke:#6e7781;fill:none;stroke-width:1.5}.head{fill:#6e7781}"
    "@media(prefers-color-scheme:dark){text{fill:#b1bac4}.name{fill:#f0f6fc}.box{fill:#161b22;stroke:#545d68}"
    ".main{fill:#12361f;stroke:#3fb950}.arrow{stroke:#9198a1}.head{fill:#9198a1}}"
)


class Box(NamedTuple):
    """A rectangle with a name and a line of small text under it."""

    x: float
    y: float
    width: float
    height: float
    name: str
    text: str = ""
    kind: str = "box"

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def svg(self) -> str:
        x, y = self.middle
        top = y - 4 if self.text else y + 5
        parts = [
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6"/>',
            words(x, top, self.name, "name"),
        ]
        return "\n".join([*parts, words(x, y + 15, self.text, "small")] if self.text else parts)


def words(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def arrow(*points: tuple[float, float]) -> str:
    """A line through points; its head points straight down, up, left or right, as the last piece runs."""
    (x0, y0), (x, y) = points[-2:]
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    back_x, back_y = x - 7 * dx, y - 7 * dy
    corners = [(x, y), (back_x + 4 * dy, back_y + 4 * dx), (back_x - 4 * dy, back_y - 4 * dx)]
    line = " ".join(f"{px:g},{py:g}" for px, py in [*points[:-1], (back_x, back_y)])
    head = " ".join(f"{px:g},{py:g}" for px, py in corners)
    return f'<polyline class="arrow" points="{line}"/><polygon class="head" points="{head}"/>'


def svg(height: int, title: str, parts: list[str]) -> str:
    """A picture that takes the colours of the reader's page; its title is what a screen reader says."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    )
    return "\n".join(
        [f'{opening} role="img"><style>{STYLE}</style>', f"<title>{escape(title)}</title>", *parts, "</svg>\n"]
    )


def workflow() -> str:
    """Rows, check, prepare, plan; train; report; then doubt, use, or another try."""
    before = [
        ("your rows", "and a recipe"),
        ("check", "keys, files"),
        ("prepare", "rows as tokens"),
        ("plan", "memory, time"),
    ]
    first = [Box(4 + 132 * i, 4, 116, 52, name, text) for i, (name, text) in enumerate(before)]
    train = Box(4, 92, 512, 52, "train", "base measured → trained → saved → tuned model measured", "main")
    report = Box(124, 180, 272, 52, "report, compare", "better, worse, or could be chance", "main")
    after = [
        Box(4, 286, 160, 52, "change", "rows or settings"),
        Box(180, 286, 160, 52, "repeat", "with other seeds"),
        Box(356, 286, 160, 52, "chat, generate", "ask the model"),
        Box(356, 356, 160, 52, "merge, upload", "use it elsewhere"),
    ]
    under, fork = report.y + report.height, 258
    parts = [box.svg for box in [*first, train, report, *after]]
    parts += [arrow((a.x + a.width, 30), (b.x, 30)) for a, b in pairwise(first)]
    parts += [arrow((first[3].middle[0], 56), (first[3].middle[0], 92)), arrow((260, 144), (260, 180))]
    parts += [
        arrow((260, under), (260, fork), (84, fork), (84, 286)),
        arrow((260, under), (260, 286)),
        arrow((260, under), (260, fork), (436, fork), (436, 286)),
        arrow((436, 338), (436, 356)),
        arrow((28, 286), (28, 144)),
        words(150, 252, "not better", "small"),
        words(306, 276, "is it luck?", "small"),
        words(388, 252, "better", "small"),
        words(76, 220, "try again", "small"),
    ]
    title = (
        "Workflow: your rows and a recipe, then hone check, prepare, plan, train, report and compare. If the model is "
        "not better, change rows or settings and train again. If in doubt, repeat with other seeds. If it is better, "
        "chat or generate with it, merge it or upload it."
    )
    return svg(412, title, parts)


# goal, then for each recipe of it: name, model, machine
GOALS: list[tuple[str, str, list[tuple[str, str, str]]]] = [
    ("try it", "a few functions", [("light-lab", "distilgpt2", "any laptop")]),
    ("a style", "one text file", [("book", "gpt2", "any laptop")]),
    ("labels", "text and label", [("classify", "distilbert", "any laptop")]),
    ("rewrite", "source, target", [("summarize-code", "t5-small", "any laptop")]),
    (
        "answers",
        "instructions",
        [
            ("instruct-gpt2", "gpt2-medium", "laptop, 4 GB free"),
            ("qwen2-lora-cpu", "Qwen2-1.5B", "no GPU, 8 GB free"),
            ("qwen2-lora-gpu", "Qwen2-1.5B", "GPU with 16 GB"),
        ],
    ),
    ("a new model", "much text", [("code-from-scratch", "GPT-2's shape", "GPU advised")]),
]


def decision() -> str:
    """From the goal to the recipe, and from there to the machine it is made for."""
    parts = [words(67, 18, "what you want"), words(262, 18, "hone init …"), words(366, 18, "machine", "left")]
    y = 30.0
    for name, text, recipes in GOALS:
        rows = [Box(174, y + 58 * i, 176, 48, recipe, model, "main") for i, (recipe, model, _) in enumerate(recipes)]
        goal = Box(4, y + 29 * (len(rows) - 1), 126, 48, name, text)
        _, centre = goal.middle
        parts.append(goal.svg)
        for row, (_, _, machine) in zip(rows, recipes, strict=True):
            _, at = row.middle
            path = (
                [(130.0, centre), (174.0, at)] if at == centre else [(130, centre), (148, centre), (148, at), (174, at)]
            )
            parts += [row.svg, arrow(*path), words(366, at + 5, machine, "left")]
        y += 58 * len(rows)
    title = "Which recipe: " + "; ".join(
        f"{name} ({text}): " + ", ".join(f"{recipe}, {model}, {machine}" for recipe, model, machine in recipes)
        for name, text, recipes in GOALS
    )
    return svg(int(y), title, parts)


FIGURES = {"workflow.svg": workflow, "decision.svg": decision}

if __name__ == "__main__":
    for file, draw in FIGURES.items():
        (Path(__file__).parent / file).write_text(draw(), encoding="utf-8")
