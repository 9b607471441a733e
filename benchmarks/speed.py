"""Training speed measured: hone beside other ways to train the same model on the same rows, on this machine's CPU.

Every set-up runs in a child process of its own, is built once, and is then asked for a few training steps at a time, in
turn with the others, so that a slow minute of the machine slows all; one computes at a time. All start from the same
random weights and take the same rows in the same order with the same step size; the losses of every step are printed
side by side. The speed of matrix products is measured between the turns. Nothing is downloaded.

    python benchmarks/speed.py distilgpt2 --data rows.json --tokenizer path/to/gpt2-tokenizer
    python benchmarks/speed.py qwen2-lora --data rows.json --tokenizer path/to/tokenizer --only expert,hone
"""

import argparse
import dataclasses
import json
import math
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from speed.measure import run_rounds
from speed.report import report
from speed.tables import GPT2_DROPOUT, TABLES, Table

MAX_LENGTH = 256


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        from speed.child import run

        run(json.loads(sys.argv[2]))
    options = parse_options()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the weights are deleted
    table = TABLES[options.table]
    if options.batch:
        table = dataclasses.replace(table, batch=options.batch)
    setups = chosen_setups(options.only or ",".join(table.setups))
    rounds, steps = options.rounds or table.rounds, options.steps or table.steps
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        task, tokens = prepare(table, options, rounds, steps, folder)
        measured = run_rounds(table, task, setups, rounds, task["steps_a_turn"], tokens, folder)
    text = report(options.table, table, measured, task["steps_a_turn"])
    print(text)
    if options.json:
        options.json.write_text(json.dumps(measured.to_json(options.table), indent=1) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="hone's training speed beside its peers'")
    parser.add_argument("table", choices=sorted(TABLES), help="what is trained: " + ", ".join(sorted(TABLES)))
    parser.add_argument(
        "--data", nargs="+", required=True, type=Path, metavar="FILE", help="instruction(+input)+output"
    )
    parser.add_argument("--tokenizer", required=True, metavar="FOLDER", help="the tokenizer, e.g. GPT-2's")
    parser.add_argument("--rounds", type=int, help="turns of each set-up")
    parser.add_argument("--steps", type=int, help="training steps of a turn (not where a turn is an epoch)")
    parser.add_argument("--batch", type=int, help="rows of a step")
    parser.add_argument("--rows", type=int, help="rows of an epoch, where a turn is an epoch")
    parser.add_argument("--only", metavar="NAMES", help="of the set-ups only these, e.g. hone,expert")
    parser.add_argument("--held-out", type=int, default=0, help="rows that are measured after each turn, not trained")
    parser.add_argument("--keys", nargs="+", default=[], metavar="KEY=VALUE", help="further keys of hone's config")
    parser.add_argument("--max-length", type=int, default=MAX_LENGTH, help=f"tokens of a row, at most ({MAX_LENGTH})")
    parser.add_argument(
        "--shape", type=json.loads, default={}, help="other numbers for the model, e.g. '{\"n_layer\": 2}'"
    )
    parser.add_argument(
        "--spin", action="store_true", help="let threads spin between parallel regions (OpenMP's default)"
    )
    parser.add_argument("--patience", type=float, default=10, help="seconds a turn waits for other programs (10)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measured number here too")
    return parser.parse_args()


def chosen_setups(names: str) -> list[str]:
    """The set-ups in the order given; those of a package that is not installed are left out, and that is said."""
    from importlib.util import find_spec

    from speed.peers import SAYS

    chosen = names.split(",")
    if unknown := [name for name in chosen if name not in SAYS]:
        raise SystemExit(f"speed.py: no set-up {unknown[0]}; there are {', '.join(SAYS)}")
    if find_spec("trl") is None and any(name.startswith("trl") for name in chosen):
        print("TRL is not installed and left out: pip install 'hone-lm[bench]'", file=sys.stderr)
        chosen = [name for name in chosen if not name.startswith("trl")]
    return chosen


def prepare(
    table: Table, options: argparse.Namespace, rounds: int, steps: int, folder: Path
) -> tuple[dict[str, Any], list[int]]:
    """Rows, order and two copies of the weights in `folder`; what every child is told, and the tokens of each step."""
    from speed.measure import run_child
    from speed.rows import choose_rows, write_held_out, write_rows

    from hone.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(options.tokenizer)
    rows_given = options.rows or table.rows
    a_turn = math.ceil(rows_given / table.batch) if table.epochs and rows_given else steps
    n_steps = table.warm_up + a_turn * (rounds if table.alive else 1)
    n_rows = rows_given or n_steps * table.batch
    epochs = math.ceil(n_steps * table.batch / n_rows) + 1  # one more, so that nobody comes to the end of training
    rows = choose_rows(options.data, tokenizer, n_rows + options.held_out, options.max_length, options.seed)
    rows, held_out = rows[:n_rows], rows[n_rows:]
    write_held_out(held_out, folder)
    tokens = write_rows(rows, folder, table.batch, epochs, options.seed)
    tokenizer.save_pretrained(folder / "tokenizer")  # apart: beside a model's config it is read as that model's kind
    vocab_size = table.vocab_size or len(tokenizer)
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {**table.shape, "vocab_size": vocab_size, **end, **options.shape}
    task = {
        "data": str(folder),
        "tokenizer": str(folder / "tokenizer"),
        "model_type": table.model_type,
        "shape": shape,
        "dtype": table.dtype,
        "method": table.method,
        "keys": options.keys,
        "bf16": table.bf16,
        "batch": table.batch,
        "max_length": options.max_length,
        "learning_rate": table.learning_rate,
        "epochs": epochs,
        "seed": options.seed,
        "spin": options.spin,
        "patience_s": options.patience,
        "steps_a_turn": a_turn,
        "products": products(shape, vocab_size, sum(tokens[:n_steps]) // n_steps),
    }
    for kind, changes in (("as-it-comes", {}), ("no-dropout", dict.fromkeys(GPT2_DROPOUT, 0.0))):
        model = folder / kind
        if kind == "as-it-comes":
            run_child({**task, "setup": "make-model", "folder": str(model)}, folder)
        else:
            copy_model(folder / "as-it-comes", model, changes if table.model_type == "gpt2" else {})
    return task, tokens


def copy_model(source: Path, target: Path, changes: dict[str, Any]) -> None:
    """The same weights (not copied) under a config with some keys changed."""
    target.mkdir()
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            (target / file.name).symlink_to(file)
        elif file.suffix == ".json":
            (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))


def products(shape: dict[str, Any], vocab_size: int, tokens: int) -> list[tuple[int, int, int]]:
    """The model's own large products for a step of so many tokens: (tokens, width) x its inner layer, x its head."""
    width = shape.get("n_embd") or shape["hidden_size"]
    inner = shape.get("intermediate_size") or 4 * width
    rows = max(tokens, 16)
    return [(rows, width, inner), (rows, inner, width), (min(rows, 512), width, vocab_size)]


if __name__ == "__main__":
    main()
