"""Which numbers of eval/*.json are shown of each task, in tables and model cards."""

from typing import Any

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
    told[0] += f": {compare['verdict']}"
    return f"tuned - base, paired: {'; '.join(told)}"
