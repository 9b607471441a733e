"""Draw docs/figures/choosing.csv as an SVG: what each method gains at each learning rate, by the number of rows.

python docs/figures/choosing.py > docs/figures/choosing.svg
"""

import csv
import math
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, PANEL, GAP = 720, 320, 48, 56, 50, 194, 26
RATES = (5e-5, 3e-4, 1e-3, 3e-3, 1e-2)
PANELS = ((8, 5), (60, 3), (400, 2))  # rows, epochs
METHODS = {"full": (0, "full"), "freeze": (2, "freeze, top 2"), "lora": (16, "LoRA, rank 16")}
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.axis{stroke:#d0d7de}.big{font-weight:600;fill:#1f2328}"
    "polyline{fill:none;stroke-width:2.5}.full{stroke:#1a7f37}.freeze{stroke:#0969da}.lora{stroke:#bc4c00}"
    "circle{stroke:none}circle.full,rect.full{fill:#1a7f37}circle.freeze,rect.freeze{fill:#0969da}"
    "circle.lora,rect.lora{fill:#bc4c00}"
    "@media(prefers-color-scheme:dark){text{fill:#9198a1}.big{fill:#f0f6fc}.axis{stroke:#3d444d}}"
)


def measured(rows: int, epochs: int, method: str) -> list[tuple[float, float]]:
    """(rate, held-out loss) of hone-base, by rate."""
    size = METHODS[method][0]
    with Path(__file__).with_name("choosing.csv").open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["base"] == "hone-base" and line["method"] == method]
    wanted = (size, rows, epochs)
    found = [line for line in lines if tuple(int(line[key]) for key in ("size", "rows", "epochs")) == wanted]
    return sorted((float(line["rate"]), float(line["loss"])) for line in found)


def base_loss() -> float:
    """The held-out loss before any training."""
    with Path(__file__).with_name("choosing.csv").open(encoding="utf-8") as file:
        line = next(line for line in csv.DictReader(file) if line["base"] == "hone-base")
    return float(line["loss"]) - float(line["from_base"])


def draw() -> str:
    base = base_loss()
    curves = {(rows, method): measured(rows, epochs, method) for rows, epochs in PANELS for method in METHODS}
    losses = [loss for curve in curves.values() for _, loss in curve]
    low, high = math.floor(min(losses) * 5) / 5, math.ceil(max(base, *losses) * 5) / 5

    def x(panel: int, rate: float) -> float:
        share = math.log(rate / RATES[0]) / math.log(RATES[-1] / RATES[0])
        return LEFT + panel * (PANEL + GAP) + 8 + share * (PANEL - 16)

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)

    ticks = [low + 0.4 * i for i in range(int((high - low) / 0.4 + 1e-9) + 1)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>',
        "<title>Held-out loss of hone-base by learning rate: full training is best near 1e-3, LoRA near 1e-2</title>",
        '<text x="4" y="16">held-out loss, nats per token; dashed: the base</text>',
    ]
    for i, (method, (_, title)) in enumerate(METHODS.items()):
        parts.append(f'<rect class="{method}" x="{330 + i * 130}" y="8" width="14" height="8"/>')
        parts.append(f'<text x="{350 + i * 130}" y="16">{title}</text>')
    parts += [f'<text x="{LEFT - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:.1f}</text>' for t in ticks]
    for i, (rows, epochs) in enumerate(PANELS):
        left = LEFT + i * (PANEL + GAP)
        parts.append(f'<text class="big" x="{left + 8}" y="{TOP - 14}">{rows} rows, {epochs} epochs</text>')
        parts += [
            f'<line class="axis" x1="{left}" x2="{left + PANEL}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>' for t in ticks
        ]
        right, at = left + PANEL, f"{y(base):.1f}"
        parts.append(f'<line class="axis" stroke-dasharray="4 4" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
        for rate in RATES:
            name = f"{rate:.0e}".replace("e-0", "e-")
            parts.append(f'<text x="{x(i, rate):.1f}" y="{HEIGHT - 30}" text-anchor="middle">{name}</text>')
        for method in METHODS:
            points = [(x(i, rate), y(loss)) for rate, loss in curves[rows, method]]
            parts.append(
                f'<polyline class="{method}" points="' + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '"/>'
            )
            parts += [f'<circle class="{method}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in points]
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">learning rate</text>')
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    print(draw())
