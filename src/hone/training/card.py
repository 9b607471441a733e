"""The model card: README.md of a run folder, with the numbers of its eval files."""

from typing import Any

from hone.bundled import NAME
from hone.config.schema import Config
from hone.evaluation.columns import COLUMNS, changes, code_lines
from hone.runs import Run


def model_card(run: Run, config: Config, pipeline_tag: str) -> str:
    """Markdown with the front matter the hub reads; says what was trained on what, and what that changed."""
    base = config.model.model_name_or_path or f"{config.model.model_type} from scratch"
    tuned, compare = run.read_eval("tuned"), run.read_eval("compare")
    front = ["---", "library_name: " + ("peft" if config.method.method == "lora" else "transformers")]
    front += [f"pipeline_tag: {pipeline_tag}", "tags: [hone]"]
    if config.model.model_name_or_path and not config.model.model_name_or_path.startswith(("/", ".", NAME)):
        relation = "adapter" if config.method.method == "lora" else "finetune"
        front += [f"base_model: {config.model.model_name_or_path}", f"base_model_relation: {relation}"]
    lines = [*front, "---", "", f"# {run.folder.name}", ""]
    lines += [f"`{base}`, trained with hone ({config.method.task}, {config.method.method}).", ""]
    if tuned is not None:
        columns = [column for column in COLUMNS[config.method.task] if column[1] in tuned]
        lines += [f"| held-out data | {' | '.join(heading for heading, _, _ in columns)} |"]
        lines += ["| --- " * (len(columns) + 1) + "|"]
        keys = [key for _, key, _ in columns]
        lines += [_row(name, run.read_eval(name), keys) for name in ("base", "tuned") if run.read_eval(name)]
        lines += ["", f"Over {tuned['n_items']:,} {tuned['item']}s, {tuned['n_tokens']:,} tokens; "]
        lines[-1] += f"{tuned['confidence_level']:.0%} intervals over {tuned['item']}s."
    if compare is not None:
        text = changes(compare)
        lines += ["", f"{text[0].upper()}{text[1:]}."]
    if programs := code_lines(run.read_eval):
        lines += ["", "Programming tasks, run against their tests:", "", *(f"- {line}" for line in programs)]
    lines += ["", "Settings: `config.resolved.yaml`. Versions, hardware and data fingerprints: `env.json`.", ""]
    return "\n".join(lines)


def _row(name: str, result: dict[str, Any] | None, keys: list[str]) -> str:
    assert result is not None
    cells = []
    for key in keys:
        interval = result.get(f"{key}_interval")
        cells.append(f"{result[key]:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""))
    return f"| {name} | {' | '.join(cells)} |"
