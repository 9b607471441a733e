"""What a comparison found, in words: for the terminal and for the card.

>>> table(checked, "held-out items")                                       # doctest: +SKIP
[('ids', 'equal on 1,064 texts', 'equal'), ...]
"""

from hone.convert.gguf_check import INSTALL, SAME_TEXT, Checked

Row = tuple[str, str, str]  # what, found, accepted


def table(found: Checked, compared_on: str) -> list[Row]:
    """One row for each thing that was compared."""
    bars = found.bars
    rows: list[Row] = []
    if found.n_texts:
        rows.append(("ids", f"equal on {found.n_texts:,} texts", "equal"))
    over = f"{found.n_items:,} {compared_on}, {found.n_tokens:,} tokens"
    allowed = "" if found.allowed is None else f"{found.allowed:.2g}"
    rows.append(("largest difference of a logit", f"{found.largest:.2g}, over {over}", allowed))
    rows.append(("mean KL divergence", f"{found.kl:.1e}", "" if bars.kl is None else f"{bars.kl:.0e}"))
    rows.append(("same likeliest token", f"{found.agree:.2%}", ""))
    change = found.perplexity_file / found.perplexity_run - 1
    rows.append(
        ("perplexity", f"{found.perplexity_run:.4f} run, {found.perplexity_file:.4f} file ({change:+.3%})",
         f"{bars.perplexity:.1%}")
    )  # fmt: skip
    ties = f", {found.n_ties} part at a tie" if found.n_ties else ""
    wanted = "equal, or a tie" if found.kind in SAME_TEXT else ""
    rows.append(("greedy text", f"{found.n_equal_greedy} of {found.n_greedy} prompts equal{ties}", wanted))
    return rows


def lines(found: Checked, compared_on: str) -> list[str]:
    """For the terminal: who read it, and what was found."""
    first = f"verified: read back by {found.reader} and compared with the run"
    if not found.whole:
        first = f"weights verified: read back by {found.reader} and compared with the run"
    rows = table(found, compared_on)
    width = max(len(what) for what, _, _ in rows)
    text = [first, *(f"  {what:{width}}  {value}{f' (allowed {bar})' if bar else ''}" for what, value, bar in rows)]
    if not found.whole:
        text.append(f"tokenizer not verified: install llama-cpp-python, {INSTALL}")
    return text
