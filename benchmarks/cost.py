"""What training costs against size: tokens a second, memory and share of the ceiling over model size and row length.

Each line is `speed.py` with hone alone: random weights of a GPT-2 of the size, full fine-tuning in bf16, about the same
number of tokens a step. For the lengths the rows are joined until each fills its length. Nothing is downloaded.

    python benchmarks/cost.py --data rows.json --tokenizer path/to/gpt2-tokenizer
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SPEED = Path(__file__).with_name("speed.py")
SIZES = ((4, 256), (6, 384), (6, 768), (12, 768), (24, 1024))  # layers, width
LENGTHS = (64, 128, 256, 512, 1024)
TOKENS = 1024  # of a step


def main() -> None:
    parser = argparse.ArgumentParser(description="tokens/s and memory over model size and row length")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="rows: instruction(+input)+output")
    parser.add_argument("--tokenizer", required=True, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    print("| model | row length | rows a step | tokens/s | share of the bf16 ceiling | peak GB above imports |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        folder = Path(name)
        for layers, width in SIZES:
            line(options, folder, options.data, layers, width, 256, 8)
        for length in LENGTHS:
            rows = full_rows(options.data, folder / f"{length}.jsonl", length)
            line(options, folder, rows, 6, 384, length, max(1, TOKENS // length))


def line(options: Any, folder: Path, data: Path, layers: int, width: int, length: int, batch: int) -> None:
    """Measure one size and print its line of the table."""
    shape = {"n_layer": layers, "n_embd": width, "n_head": width // 64}
    out = folder / "measured.json"
    command = [
        sys.executable,
        str(SPEED),
        "distilgpt2",
        "--only",
        "hone",
        "--rounds",
        "2",
        "--steps",
        str(options.steps),
    ]
    command += ["--data", str(data), "--tokenizer", options.tokenizer, "--max-length", str(length)]
    command += ["--batch", str(batch), "--shape", json.dumps(shape), "--json", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cost.py: {' '.join(command)}\n{done.stderr[-2000:]}")
    result = json.loads(out.read_text())["setups"]["hone"]
    rates = [turn["tokens"] / turn["seconds"] for turn in result["turns"]]
    ceilings = [statistics.mean(rate["bfloat16"] for rate in turn["rates"]) for turn in result["turns"]]
    share = statistics.mean(a * result["flops_per_token"] / b for a, b in zip(rates, ceilings))
    millions = (12 * layers * width**2 + (50257 + 1024) * width) / 1e6
    peak = (result["peak"] - result["baseline"]) / 1e9
    speed = f"{statistics.mean(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
    about = f"{millions:,.0f} million, {layers} x {width}"
    print(f"| {about} | {length} | {batch} | {speed} | {100 * share:.0f} % | {peak:.2f} |", flush=True)


def full_rows(data: Path, target: Path, length: int) -> Path:
    """Rows joined until each has more than `length` tokens (about three characters a token)."""
    from hone.data.sources import read_rows

    rows = (dict(row.columns) for row in read_rows([data], on_bad_row="error", on_skip=print))
    with target.open("w", encoding="utf-8") as file:
        for _ in range(16 * TOKENS // length + 64):
            joined, instruction = "", ""
            for row in itertools.islice(rows, 400):
                instruction = instruction or row["instruction"]
                joined += f"{row['output']}\n\n{row['instruction']}\n"
                if len(joined) > 5 * length:
                    break
            file.write(json.dumps({"instruction": instruction, "input": "", "output": joined}) + "\n")
    return target


if __name__ == "__main__":
    main()
