"""Draw a run's validation loss before, during and after training as an SVG, from its files alone.

hone demo && python docs/figures/demo.py out/demo/functions > docs/figures/demo.svg
"""

import sys
from pathlib import Path

from hone.runs import Run

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 300, 56, 44, 24, 150
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.axis{stroke:#d0d7de}.train{stroke:#8c959f;fill:none}"
    ".val{stroke:#1a7f37;fill:none;stroke-width:2.5}.dot{fill:#1a7f37}.band{fill:#1a7f37;opacity:.12}.big{font-weight:600;fill:#1f2328}"
    "@media(prefers-color-scheme:dark){text{fill:#9198a1}.big{fill:#f0f6fc}.axis{stroke:#3d444d}}"
)


def draw(run: Run) -> str:
    """Training loss in grey, held-out loss in green, with the intervals of the two measurements as bands."""
    assert run.base and run.tuned, f"{run.folder} is not a finished run"
    base, tuned = run.base.metrics["loss"], run.tuned.metrics["loss"]
    assert base.bounds and tuned.bounds, "one held-out item has no interval"
    lines = run.metric_lines()
    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    val = [(0, base.value), *((line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line)]
    last = max(step for step, _ in val)
    losses = [loss for _, loss in train + val] + [*base.bounds, *tuned.bounds]
    low, high = min(losses), max(losses)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)

    def line(points: list[tuple[int, float]], name: str) -> str:
        return f'<polyline class="{name}" points="' + " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points) + '"/>'

    def band(interval: tuple[float, float], step: float) -> str:
        top, height = y(interval[1]), y(interval[0]) - y(interval[1])
        return f'<rect class="band" x="{x(step) - 7:.1f}" y="{top:.1f}" width="14" height="{height:.1f}"/>'

    ticks = [value for value in range(int(low), int(high) + 2) if low <= value <= high]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>',
        f"<title>Held-out loss falls from {base.value:.2f} to {tuned.value:.2f} nats per token</title>",
        *(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>' for t in ticks),
        *(f'<text x="{LEFT - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t}</text>' for t in ticks),
        line(train, "train"),
        line(val, "val"),
        band(base.bounds, 0),
        band(tuned.bounds, last),
        *(f'<circle class="dot" cx="{x(s):.1f}" cy="{y(v):.1f}" r="4"/>' for s, v in (val[0], val[-1])),
        f'<text class="big" x="{x(0) + 12:.1f}" y="{y(base.value) + 5:.1f}">base {base.value:.2f}</text>',
        f'<text class="big" x="{x(last) + 14:.1f}" y="{y(tuned.value) + 5:.1f}">tuned {tuned.value:.2f}</text>',
        f'<text x="{x(train[-1][0]) + 14:.1f}" y="{y(train[-1][1]) + 5:.1f}">training</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">optimizer steps</text>',
        f'<text x="{LEFT - 44}" y="14">nats per token, {run.base.n_items} held-out functions</text>',
        "</svg>",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(draw(Run(Path(sys.argv[1]))))
