"""What is printed: medians with their spread, ratios taken round by round, and the losses side by side."""

import statistics
from collections.abc import Callable

from speed.environment import environment
from speed.measure import Measured, SetupResult, Turn
from speed.peers import DROPOUT_AS_IT_COMES, SAYS
from speed.tables import Table

REFERENCE = "expert"


def report(name: str, table: Table, measured: Measured, steps: int) -> str:
    parts = [
        heading(name, table, measured, steps),
        speeds(table, measured),
        *([epochs(measured)] if table.epochs else []),
        *([starts(measured)] if table.start_up else []),
        *([times_to_loss(measured)] if any(t.held_out for r in measured.setups.values() for t in r.turns) else []),
        ceilings(measured),
        losses(measured),
    ]
    return "\n".join(parts)


def heading(name: str, table: Table, measured: Measured, steps: int) -> str:
    about = environment()
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    instructions = ", ".join(about["instructions"]) or "no wide instructions known"
    first = next(iter(measured.setups.values()))
    tokens = sum(turn.tokens for turn in first.turns)
    rows = "1 row" if table.batch == 1 else f"{table.batch} rows"
    return (
        f"## {name}: {table.says}\n\n"
        f"{about['cpu']}, {about['cpus']:g} CPUs ({instructions}); {versions}; {about['date']}.\n"
        f"{len(first.turns)} turns of {steps} steps of {rows} each, {tokens:,} real tokens for each set-up. "
        f"Waiting children used at most {100 * measured.idle_cpu:.1f} % of one CPU, other programs "
        f"{spread([100 * turn.others for r in measured.setups.values() for turn in r.turns], '{:.0f} %')}.\n"
    )


def speeds(table: Table, measured: Measured) -> str:
    dtype = "bfloat16" if table.bf16 else "float32"
    reference = measured.setups.get(REFERENCE)
    rows = []
    for name, result in measured.setups.items():
        ratio = "-"
        if reference is not None:
            ratio = spread(
                [ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in zip(result.turns, reference.turns)],
                "{:.2f}",
            )
        share = [100 * turn.tokens_per_s * result.flops_per_token / turn.rate(dtype) for turn in result.turns]
        rows.append(
            [
                name,
                says(name, table),
                spread([turn.tokens_per_s for turn in result.turns], "{:,.0f}"),
                "1" if name == REFERENCE else ratio,
                spread(share, "{:.0f} %"),
                f"{result.peak / 1e9:.2f} ({result.baseline / 1e9:.2f})",
                f"{statistics.median(result.set_up_s):.1f}",
            ]
        )
    header = [
        "set-up",
        "what it is",
        "real tokens/s",
        f"x {REFERENCE}",
        f"share of the {dtype} ceiling",
        "peak GB (after imports)",
        "set-up s",
    ]
    return markdown(header, rows, text_columns=2)


def says(name: str, table: Table) -> str:
    text = SAYS[name]
    if table.model_type != "gpt2":  # these models have no dropout
        text = text.replace(", dropout as the model comes", "").replace(", no dropout", "")
    if not table.bf16:
        return text.replace("bf16 autocast", "float32").replace("bf16", "float32")
    if table.dtype == "bfloat16" and name == "hone":
        return text.replace("bf16", "bfloat16 weights")
    return text


def epochs(measured: Measured) -> str:
    """Seconds of the first epoch, which may fill caches, and of the later ones."""
    reference = measured.setups.get(REFERENCE)
    rows = []
    for name, result in measured.setups.items():
        later = [turn.seconds for turn in result.turns[1:]]
        ratios = [r.seconds / turn.seconds for r, turn in zip(reference.turns, result.turns)] if reference else []
        rows.append(
            [
                name,
                f"{result.turns[0].seconds:.1f}",
                spread(later, "{:.1f}") if later else "-",
                f"{ratios[0]:.2f}" if ratios else "-",
                spread(ratios[1:], "{:.2f}") if ratios[1:] else "-",
            ]
        )
    header = ["set-up", "first epoch s", "later epochs s", f"first x {REFERENCE}", f"later x {REFERENCE}"]
    return markdown(header, rows)


def starts(measured: Measured) -> str:
    """From the start of the process to the end of its first step, and steps a second after it."""
    rows = []
    for name, result in measured.setups.items():
        first = [turn.first_step_s for turn in result.turns if turn.first_step_s is not None]
        a_second = [len(turn.losses) / turn.seconds for turn in result.turns]
        rows.append([name, spread(first, "{:.2f}") if first else "-", spread(a_second, "{:.1f}")])
    return markdown(["set-up", "start of the process to the end of the first step, s", "then steps/s"], rows)


def times_to_loss(measured: Measured) -> str:
    """Held-out loss after each turn, and the seconds of training until the loss that all of them have reached."""
    ends = {name: [turn.held_out for turn in result.turns] for name, result in measured.setups.items()}
    common = max(min(values) for values in ends.values())  # type: ignore[type-var]
    rows = []
    for name, result in measured.setups.items():
        seconds, reached, before = 0.0, None, None
        for turn in result.turns:
            assert turn.held_out is not None
            if reached is None and turn.held_out <= common:
                share = 1.0 if before is None else (before - common) / (before - turn.held_out)
                reached = seconds + share * turn.seconds
            seconds, before = seconds + turn.seconds, turn.held_out
        told = " ".join(f"{value:.3f}" for value in ends[name])
        rows.append([name, told, f"{seconds:.1f}", "-" if reached is None else f"{reached:.1f}"])
    header = ["set-up", "held-out loss after each turn", "seconds in all", f"seconds to {common:.3f}"]
    return markdown(header, rows, text_columns=2)


def ceilings(measured: Measured) -> str:
    """The machine's matrix products over the run: what they would allow, as tokens a second."""
    flops = next(iter(measured.setups.values())).flops_per_token
    turns = [turn for result in measured.setups.values() for turn in result.turns]
    rows = []
    for dtype in ("bfloat16", "float32"):
        rates = [turn.rate(dtype) for turn in turns]
        tokens = spread([rate / flops for rate in rates], "{:,.0f}")
        rows.append([dtype, spread([rate / 1e9 for rate in rates], "{:,.0f}"), tokens])
    return markdown(["matrix products", "GFLOP/s", f"tokens/s at {flops / 1e6:,.0f} MFLOP a token"], rows)


def losses(measured: Measured) -> str:
    """Each step's loss, a column for each set-up; those without dropout should agree to rounding."""
    names = list(measured.setups)
    columns = {name: all_losses(result) for name, result in measured.setups.items()}
    rows = [
        [str(step + 1), *(f"{columns[name][step]:.4f}" for name in names)]
        for step in range(min(map(len, columns.values())))
    ]
    exact = [columns[name] for name in names if name not in DROPOUT_AS_IT_COMES]
    text = markdown(["loss at step", *names], rows)
    if len(exact) > 1:
        apart = max(max(values) - min(values) for values in zip(*exact))
        text += f"\nLosses of the set-ups without dropout differ by at most {apart:.4f}.\n"
    return text


def all_losses(result: SetupResult) -> list[float]:
    """Of one process: warm-up first, then its turns (where each turn has a fresh process, the first turn's)."""
    fresh = any(turn.first_step_s is not None for turn in result.turns) and len(result.set_up_s) > 1
    turns: list[Turn] = result.turns[:1] if fresh else result.turns
    return result.warm_up_losses + [loss for turn in turns for loss in turn.losses]


def spread(values: list[float], form: str) -> str:
    """median (smallest to largest)"""
    tell: Callable[[float], str] = form.format
    if len(values) == 1:
        return tell(values[0])
    return f"{tell(statistics.median(values))} ({tell(min(values))} to {tell(max(values))})"


def markdown(header: list[str], rows: list[list[str]], text_columns: int = 1) -> str:
    rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows]) + "\n"
