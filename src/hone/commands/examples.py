"""What `--help` shows below the options: real lines to copy; a test parses each of them."""

# The name of a command -> lines to type, and what each does. The first is the one that an incomplete line is answered
# with.
EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "demo": [
        ("hone demo", "two minutes, offline: from rows to a report"),
        ("hone demo --method lora", "the same with an adapter"),
    ],
    "init": [
        ("hone init", "the recipes, one line each"),
        ("hone init light-lab --with-data", "writes light-lab.yaml, and rows to try it with"),
        ("hone init book -o my.yaml", "writes my.yaml, with a comment on every key"),
    ],
    "check": [
        ("hone check my.yaml", "keys, files and first rows; prints what is not the default"),
        ("hone check my.yaml --all", "every key with its value"),
        ("hone check data.jsonl", "are these rows of a form that can be trained?"),
    ],
    "explain": [
        ("hone explain", "all keys, one line each"),
        ("hone explain learning_rate", "one key: what, why, how, what it costs"),
        ("hone explain perplexity", "what a word means"),
    ],
    "prepare": [
        ("hone prepare my.yaml --show 3", "three rows as the model sees them"),
        ("hone prepare data.jsonl", "counts: rows, tokens, what is dropped and why"),
    ],
    "plan": [
        ("hone plan my.yaml", "parameters, steps, memory and disk, before anything is loaded"),
        ("hone plan my.yaml --measure", "and the time, from two real steps"),
    ],
    "train": [
        ("hone train my.yaml", "as the file says; the same line resumes"),
        ("hone train my.yaml lr=1e-4 output_dir=runs/b", "another rate, in another folder"),
        ("hone train data.jsonl", "no config: these rows on the bundled model"),
        ("hone train my.yaml nproc_per_node=4", "four processes share each step, one for each GPU"),
    ],
    "repeat": [
        ("hone repeat my.yaml", "six seeds: is the change larger than seed variance?"),
        ("hone repeat my.yaml --seeds 1,2,7", "these three"),
        ("hone repeat my.yaml --seeds 6 --jobs 2", "two at a time"),
    ],
    "search": [
        ("hone search my.yaml learning_rate=[1e-4,3e-4,1e-3]", "three rates: which is best, and how good is it?"),
        ("hone search my.yaml lr=[1e-4,3e-4] lora_r=[8,64]", "every combination"),
        ("hone search my.yaml learning_rate=1e-5..1e-3 --trials 12", "a range, by optuna's proposals"),
    ],
    "launch": [
        ("hone launch slurm my.yaml --time 04:00:00 --gpus 4", "print a job script: four processes on one machine"),
        ("hone launch slurm my.yaml --gpus 1 --seeds 6 --submit", "hand in six jobs, and one that puts them together"),
        ("hone launch slurm my.yaml lr=[1e-4,3e-4] -o my.sbatch", "a job for each rate; the script goes into a file"),
    ],
    "eval": [
        ("hone eval runs/my", "the tuned model on its run's own held-out rows"),
        ("hone eval hone-base eval.jsonl", "any model on any rows"),
        ("hone eval runs/my --text 'def add(a, b):'", "one text: how likely is it to the model?"),
    ],
    "grade": [
        ("hone grade tasks.jsonl", "are the tasks sound? their own solutions against their tests"),
        ("hone grade tasks.jsonl samples.jsonl --k 1,10", "pass@1 and pass@10 of programs you have"),
    ],
    "compare": [
        ("hone compare runs/my", "base and tuned model of one run"),
        ("hone compare runs/a runs/b", "two runs, measured on the same rows"),
    ],
    "report": [("hone report runs/my", "writes report.html and report.md again")],
    "runs": [("hone runs", "those below this folder"), ("hone runs runs", "those below runs/")],
    "ui": [
        ("hone ui", "the runs below this folder, in your browser"),
        ("hone ui runs --no-open", "those below runs/; prints the address"),
    ],
    "generate": [
        ("hone generate runs/my 'def add(a, b):'", "continue a prompt"),
        ("hone generate hone-base 'def add(' --temperature 0.8 -n 3", "three different answers"),
        ("hone generate runs/my --prompts prompts.txt -o answers.jsonl", "many prompts, one a line"),
    ],
    "chat": [
        ("hone chat hone-base", "talk; quit, /exit or Ctrl-D leaves"),
        ("hone chat runs/my --temperature 0.7", "answers that vary; /compare asks the base beside it"),
    ],
    "predict": [
        ("hone predict runs/my --text 'I loved it'", "class and probability"),
        ("hone predict runs/my reviews.txt", "one text a line"),
    ],
    "serve": [
        ("hone serve runs/my", "base and tuned of a run, at http://127.0.0.1:8000/v1"),
        ("hone serve hone-base --port 0", "one model, at any port that is free"),
        ("hone serve hone-base --adapter a=runs/a --adapter b=runs/b", "two adapters, their base in memory once"),
    ],
    "tokenizer": [
        ("hone tokenizer train code/ --vocab-size 8192 -o my-tokenizer", "a byte-level BPE of these files"),
        ("hone tokenizer measure my-tokenizer eval.jsonl", "bytes per token, beside the bundled one's"),
        ("hone tokenizer measure my-tokenizer eval.jsonl --against gpt2", "beside another's"),
    ],
    "corpus": [
        ("hone corpus plan code.yaml", "what it would cost, from a sample"),
        ("hone corpus run code.yaml", "make it; the same line goes on after a kill"),
        ("hone corpus run code.yaml workers=2 work_dir=scratch", "the same bytes with more processes"),
    ],
    "convert": [("hone convert 124M gpt2", "OpenAI's raw files in 124M/ to a model folder gpt2/")],
    "export": [
        ("hone export runs/my --to gguf", "for llama.cpp, f16, in runs/my-gguf"),
        ("hone export runs/my --to ollama --dtype q8_0", "the same at half the size, with a Modelfile"),
        ("hone export runs/lora --to merged -o merged", "base and adapter as one model folder"),
        ("hone export runs/my --to hub --repo YOUR-NAME/MODEL", "private unless --public is given"),
    ],
    "verify": [
        ("hone verify runs/my", "the model, its checkpoints and what was measured"),
        ("hone verify runs/lora --json", "for scripts; exit code 3 if a file has changed"),
    ],
    "doctor": [
        ("hone doctor", "processor, precision, memory, GPU, sandbox, packages"),
        ("hone doctor --distributed nproc_per_node=2", "do two processes meet, share a folder, and how fast are they?"),
    ],
    "cache": [
        ("hone cache", "what is kept, and how large it is"),
        ("hone cache --remove tokens --older-than 30", "delete tokens unused for a month"),
    ],
    "help": [("hone help", "the commands"), ("hone help train", "one of them")],
    "version": [("hone version", "as hone --version")],
}

PATHS = "Paths on the command line start at the current folder, paths in a YAML file at that file's folder."


def first_example(command: str) -> str | None:
    """The line to answer an incomplete one with."""
    lines = EXAMPLES.get(command)
    return lines[0][0] if lines else None


def examples_text(command: str, takes_keys: bool) -> str:
    """The foot of a command's help."""
    lines = EXAMPLES.get(command, [])
    width = max((len(line) for line, _ in lines), default=0)
    text = [" Examples:", *(f"   {line:{width}}  # {what}" for line, what in lines)] if lines else []
    if takes_keys:
        from hone.config.related import MOST_USED

        half = len(MOST_USED) // 2
        text += ["", " Ten keys to know first (hone explain KEY; hone explain lists all of them):"]
        text += ["   " + " ".join(keys) for keys in (MOST_USED[:half], MOST_USED[half:])]
        text += ["", f" {PATHS}"]
    return "\n".join(text)
