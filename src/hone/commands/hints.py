"""Names of commands and options from elsewhere, and the exact line to type instead.

>>> hint_for_command("finetune")
'write hone train my.yaml, or hone train data.jsonl'
"""

TRAIN = "write hone train my.yaml, or hone train data.jsonl"
MEASURE = (
    "write hone eval MODEL eval.jsonl (loss), hone grade tasks.jsonl samples.jsonl (unit tests), "
    "or hone compare RUN (base and tuned)"
)
ANSWER = "write hone generate MODEL 'a prompt', hone chat MODEL, or hone predict RUN --text 'a text' (classes)"
RUNS = "write hone runs (your runs), hone init (recipes), or hone explain (config keys)"
ELSEWHERE = "; docs/afterwards.md shows how to load, merge and upload a model"
COMMANDS: dict[str, str] = {
    **dict.fromkeys(("finetune", "fine-tune", "fine_tune", "tune", "fit", "run", "start", "resume", "continue"), TRAIN),
    **dict.fromkeys(("test", "evaluate", "evaluation", "measure", "bench", "benchmark", "score"), MEASURE),
    **dict.fromkeys(("sample", "infer", "inference", "complete", "prompt", "ask"), ANSWER),
    **dict.fromkeys(("list", "ls", "show", "status", "history"), RUNS),
    **dict.fromkeys(("classify",), "write hone init classify (the recipe), then hone predict RUN --text 'a text'"),
    **dict.fromkeys(("new", "create", "recipes", "config"), "write hone init light-lab; hone init lists the recipes"),
    **dict.fromkeys(("validate", "lint"), "write hone check my.yaml"),
    **dict.fromkeys(("tokenize", "preprocess", "dataset", "data"), "write hone prepare my.yaml --show 3"),
    **dict.fromkeys(("estimate", "cost", "memory"), "write hone plan my.yaml"),
    **dict.fromkeys(("info", "env", "setup"), "write hone doctor"),
    **dict.fromkeys(("merge", "save"), "write hone export RUN --to merged" + ELSEWHERE),
    **dict.fromkeys(("push", "upload"), "write hone export RUN --to hub --repo YOUR-NAME/MODEL" + ELSEWHERE),
    **dict.fromkeys(("gguf", "ollama"), "write hone export RUN --to gguf, or --to ollama" + ELSEWHERE),
}
# (option, the commands it is meant for; none: all) -> what to write
OPTIONS: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (("--model", "-m", "--model_name_or_path"), (), "the model has no option, it comes first: hone {command} MODEL"),
    (("--recipe", "-r"), ("init",), "the recipe has no option: hone init light-lab"),
]


def hint_for_command(name: str) -> str | None:
    """What to type in place of a command that is not there; None where nothing is known of it."""
    return COMMANDS.get(name.lower())


def hint_for_option(command: str, option: str) -> str | None:
    """What to type in place of an option that a command does not have."""
    for options, commands, hint in OPTIONS:
        if option in options and (not commands or command in commands):
            return hint.format(command=command)
    return None
