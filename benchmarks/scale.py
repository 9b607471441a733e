"""What a collection of text and a number of GPUs mean on paper: time, memory, bytes moved, failures, checkpoints.

python benchmarks/scale.py --text-tb 10 --gpus 1000 --parameters 7e9

Arithmetic alone, from the measured and published numbers that are named below; nothing is run. docs/scale.md has its
output for these values and says what each line is made of. What must be measured on the machines themselves is an
option: the speed of a disk, of a link, the share of the peak that a step reaches.
"""

import argparse
import math

DAY = 86400.0
# Grattafiori et al. 2024, The Llama 3 Herd of Models (arXiv:2407.21783), section 3.3.4 and table 5: unexpected
# interruptions in 54 days on 16,384 H100.
FAILURES_A_GPU_DAY = 419 / (54 * 16384)
PEAK_FLOPS = 989e12  # H100 SXM, bfloat16 without sparsity: NVIDIA's data sheet
BYTES_A_TOKEN = 4.0  # of text, about: a tokenizer of 32,000 to 128,000 entries on English; code is nearer to 3
WEIGHT, GRADIENT, ADAM = 4, 4, 8  # bytes a parameter in float32, as hone keeps them
ROW = 2048  # tokens of a training row
DOCUMENT = 5000.0  # bytes of a web page's text, about


def lines(options: argparse.Namespace) -> list[tuple[str, str]]:
    """The table, row by row."""
    text, gpus, parameters = options.text_tb * 1e12, options.gpus, options.parameters
    tokens = text / BYTES_A_TOKEN
    rows, documents = tokens / ROW, text / DOCUMENT
    cores = text / (options.corpus_mb_s * 1e6)
    flops = 6 * parameters * tokens
    seconds = flops / (gpus * PEAK_FLOPS * options.utilisation)
    state = (WEIGHT + GRADIENT + ADAM) * parameters
    saved = (WEIGHT + ADAM) * parameters
    sums = 2 * (gpus - 1) / gpus * GRADIENT * parameters
    between = DAY / (gpus * FAILURES_A_GPU_DAY)
    writing = saved / (options.disk_gb_s * 1e9)
    interval = math.sqrt(2 * writing * between)
    lost = writing / interval + interval / (2 * between)
    return [
        ("tokens", f"{tokens / 1e12:.2g} T"),
        ("token files, 2 or 4 bytes each", f"{2 * tokens / 1e12:.3g} or {4 * tokens / 1e12:.3g} TB"),
        ("preparing, core hours", f"{cores / 3600:,.0f}"),
        ("preparing on 1,000 cores", f"{cores / 3600 / 1000:.1f} h"),
        ("training, all GPUs", f"{seconds / DAY:.1f} days"),
        ("weights, gradients, AdamW: on each GPU with DDP", f"{state / 1e9:.0f} GB"),
        ("the same with FSDP2, a share on each", f"{state / gpus / 1e9:.2f} GB"),
        ("gradients sent and received by each GPU a step, DDP", f"{sums / 1e9:.0f} GB"),
        (f"that at {options.link_gb_s:g} GB/s", f"{sums / (options.link_gb_s * 1e9):.1f} s"),
        ("failures a day", f"{gpus * FAILURES_A_GPU_DAY:.2f}"),
        ("a failure each", f"{between / 3600:.0f} h"),
        ("a checkpoint", f"{saved / 1e9:.0f} GB"),
        (f"written by one process at {options.disk_gb_s:g} GB/s", f"{writing:.0f} s"),
        ("best time between checkpoints", f"{interval / 60:.0f} min"),
        ("lost to saving and to what is done again", f"{100 * lost:.1f} %"),
        ("the order of an epoch, in each process", f"{8 * rows / 1e9:.1f} GB"),
        ("the index of documents, mapped", f"{8 * documents / 1e9:.0f} GB"),
        ("questions a second to the store while all wait", f"{gpus / options.look_s:,.0f}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text-tb", type=float, default=10)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--parameters", type=float, default=7e9)
    parser.add_argument("--utilisation", type=float, default=0.4, help="of the peak; Llama 3 reports 38 to 43 %%")
    parser.add_argument("--corpus-mb-s", type=float, default=1.0, help="text a core prepares a second, all stages")
    parser.add_argument("--link-gb-s", type=float, default=50, help="of each GPU to other machines: 400 Gb/s")
    parser.add_argument("--disk-gb-s", type=float, default=1, help="of one writer to the shared file system")
    parser.add_argument("--look-s", type=float, default=0.05, help="how often a process that waits asks (processes.py)")
    for name, value in lines(parser.parse_args()):
        print(f"{name:52}  {value}")


if __name__ == "__main__":
    main()
