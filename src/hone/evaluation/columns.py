"""Which numbers of eval/*.json are shown of each task, in tables and model cards."""

from collections.abc import Callable
from typing import Any

ENOUGH_TEXTS = 10  # fewer written texts are read, not counted
LOSS = (("loss (nats/token)", "loss", ".3f"), ("perplexity", "perplexity", ",.2f"))
COLUMNS = {  # task -> heading, key of eval/*.json, format
    "causal": (*LOSS, ("bits per byte", "bits_per_byte", ".3f")),
    "classification": (
        ("accuracy", "accuracy", ".3f"),
        ("balanced accuracy", "balanced_accuracy", ".3f"),
        ("macro F1", "macro_f1", ".3f"),
        ("loss (nats/row)", "loss", ".3f"),
    ),
    "seq2seq": (
        *LOSS,
        ("exact match", "exact_match", ".3f"),
        ("chrF", "chrf", ".1f"),
        ("BLEU", "bleu", ".1f"),
        ("ROUGE-L", "rouge_l", ".3f"),
    ),
}
CHANGES = {  # task -> key of eval/compare.json, unit
    "causal": (("loss", "nats/token"),),
    "classification": (("accuracy", "accuracy"), ("loss", "nats/row")),
    "seq2seq": (("loss", "nats/token"), ("exact_match", "exact match"), ("chrf_mean", "chrF"), ("rouge_l", "ROUGE-L")),
}


def changes(compare: dict[str, Any]) -> str:
    """The paired differences in one line: 'tuned - base, paired: -0.12 [-0.15, -0.09] nats/token: better'."""
    told = []
    for key, unit in CHANGES[compare.get("task", "causal")]:
        if f"{key}_difference" in compare:
            interval = compare[f"{key}_difference_interval"]
            bounds = f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else ""
            told.append(f"{compare[f'{key}_difference']:+.3f}{bounds} {unit}")
    if "mcnemar_p_value" in compare:
        told[0] += (
            f" ({compare['only_tuned_right']} rows newly right, {compare['only_base_right']} newly wrong, "
            f"McNemar p = {compare['mcnemar_p_value']:.2g})"
        )
    told[0] += f": {compare['verdict']}{_evidence(compare)}"
    return f"tuned - base, paired: {'; '.join(told)}"


def code_lines(read_eval: Callable[[str], dict[str, Any] | None]) -> list[str]:
    """What a run says of programming tasks: base, tuned and the difference, as far as they were measured."""
    lines = [f"{name}: {code_line(found)}" for name in ("base", "tuned") if (found := read_eval(f"{name}.code"))]
    compare = read_eval("compare.code")
    return [*lines, code_change(compare)] if compare else lines


def code_line(result: dict[str, Any]) -> str:
    """Of eval/*.code.json: 'pass@1 0.300 [0.146, 0.519] over 20 tasks (20 answers: 6 pass, 10 wrong, 4 exception)'."""
    shares = []
    for k, item in result["pass_at_k"].items():
        if item["value"] is not None:
            bounds = f" [{item['interval'][0]:.3f}, {item['interval'][1]:.3f}]" if item["interval"] else ""
            shares.append(f"pass@{k} {item['value']:.3f}{bounds or ' [one task: no interval]'}")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result["verdicts"].items())
    return f"{', '.join(shares)} over {result['n_tasks']} tasks ({result['n_samples']} answers: {counts})"


def code_change(compare: dict[str, Any]) -> str:
    """The paired difference of eval/compare.code.json, and what so few tasks could have shown."""
    low, high = compare["pass_difference_interval"] or (float("nan"), float("nan"))
    least = compare["detectable_difference"]
    told = (
        f"programs, tuned - base, paired over {compare['n_items']} tasks: {compare['pass_difference']:+.3f} "
        f"[{low:+.3f}, {high:+.3f}] of answers passed ({compare['only_tuned_better']} tasks better, "
        f"{compare['only_base_better']} worse; {compare['test']}: p = {compare['p_value']:.2g}): {compare['verdict']}"
    )
    if compare["verdict"] != "not distinguishable":
        return told
    return f"{told}; these tasks show " + (f"differences from {least:.2f} on" if least else "no difference: too few")


def _evidence(compare: dict[str, Any]) -> str:
    """' (p = 0.0002; 30 documents show a change of 0.06 or more)'; nothing in runs that are older than this."""
    if "p_adjusted" not in compare:
        return ""
    shown = shows(compare["mde"], compare["n_items"], compare["item"], compare["confidence_level"])
    return f" (p = {compare['p_adjusted']:.2g}{f'; {shown}' if shown else ''})"


def shows(mde: float | None, n_items: int, item: str, confidence: float) -> str:
    """What so many items can show, 8 times in 10; nothing where they do not tell.

    >>> shows(None, 4, "document", 0.95)
    '4 documents are too few to show any change'
    """
    these = f"{n_items:,} {item}{'s' if n_items != 1 else ''}"
    if 2.0 ** (1 - n_items) >= 1 - confidence:  # the smallest p there can be
        return f"{these} {'is' if n_items == 1 else 'are'} too few to show any change"
    return f"{these} show a change of {mde:.2g} or more" if mde is not None else ""


def code_notes(result: dict[str, Any]) -> str:
    """How the answers of eval/*.code.json came about, and whether they were too short to be judged."""
    about, drawn = result["about"], result["about"]["settings"]
    told = (
        f"asked by the template {about['template']}; temperature {drawn['temperature']:g}, top_p {drawn['top_p']:g}, "
        f"at most {drawn['max_new_tokens']} new tokens"
    )
    if result["n_at_limit"]:
        told += (
            f"\nnote: {result['n_at_limit']} of {result['n_samples']} answers were cut off there; "
            f"a higher max_new_tokens may pass more"
        )
    if no_room := result["verdicts"].get("no-room"):
        told += (
            f"\nnote: {no_room} answers were not asked for: the prompt fills the model's window. They count as failed"
        )
    return told
