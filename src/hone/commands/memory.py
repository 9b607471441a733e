"""Out of memory, at the moment itself: which errors say so, and what to lower, in the order of what it costs."""

from hone.errors import first_line

SIGNS = ("out of memory", "not enough memory: you tried to allocate", "can't allocate memory", "cannot allocate memory")
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch, on a CPU, CUDA or MPS, ran out of memory; by name, so that torch is not imported."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(s in said for s in SIGNS)


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
