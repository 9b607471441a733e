"""Out of memory, at the moment itself: what to lower, in the order of what it costs."""

from hone.errors import first_line

LADDER = (
    ("eval_tokens_per_batch=512", "while measuring; changes nothing that is learned"),
    ("micro_batch_tokens=512", "the same steps in smaller pieces"),
    ("gradient_checkpointing=true", "the same steps, slower"),
    ("max_length=256", "long rows are cut, or left out with on_long_row=drop"),
    ("method=freeze", "only the top blocks train, and only they keep anything; learns less"),
    ("method=lora", "of a large model: hardly any weights train; wants a higher learning_rate"),
    ("model_name_or_path=…", "a smaller base"),
)
ELSE = "fewer or shorter texts at a time: max_length, --max-new-tokens, -n, or a smaller model"
PAGE = 'docs/troubleshooting.md, section "Out of memory"'


def out_of_memory_text(error: BaseException, *, trains: bool) -> str:
    """What happened, and the settings to try one after another; `trains`: of a command that takes settings."""
    reason = "" if isinstance(error, MemoryError) and not str(error) else f" ({first_line(error)[:200]})"
    lines = [f"out of memory{reason}"]
    if not trains:
        return "\n  ".join([*lines, ELSE, f"more in {PAGE}"])
    width = max(len(setting) for setting, _ in LADDER)
    lines += ["add one after the other, until it fits:"]
    lines += [f"  {setting:{width}}  {what}" for setting, what in LADDER]
    lines += [
        "`hone plan` with the same words says what fits, before a run; a run that has begun with other settings wants",
        f"another output_dir; more in {PAGE}",
    ]
    return "\n  ".join(lines)
