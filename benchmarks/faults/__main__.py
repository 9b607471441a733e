"""All fault scripts, one after the other: `python benchmarks/faults`, or some trials of each with --quick.

Exit code 1: one of them lost something.
"""

import sys

import corruptions
import full_disk
import kills
import powerloss
import signals
import straced
import sweep
import trials

ALL = {
    "kills": kills,
    "sweep": sweep,
    "corruptions": corruptions,
    "signals": signals,
    "powerloss": powerloss,
    "full_disk": full_disk,
}
AVAILABLE = {"sweep": straced.available, "powerloss": straced.available, "full_disk": full_disk.available}
QUICK = {
    "kills": ["--kills", "3", "--kinds", "frozen with cache"],
    "sweep": ["--parts", "model", "--share", "1/60"],
    "corruptions": ["--trials", "6", "--scenes", "killed full"],
    "signals": ["--signals", "SIGTERM", "--stages", "training,saving the model"],
    "powerloss": ["--parts", "model", "--share", "1/20"],
    "full_disk": ["--moments", "saving a checkpoint", "--ways", "nearly,read-only"],
}


def main(argv: list[str]) -> int:
    """Run them; 1 if one lost something."""
    parser = trials.arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="some trials of each")
    given = parser.parse_args(argv)
    code = 0
    for name, script in ALL.items():
        print(f"\n## {name}\n", flush=True)
        if name in AVAILABLE and (why := AVAILABLE[name]()):
            print(f"skipped: {why}")
            continue
        code |= script.main(
            [*(QUICK[name] if given.quick else []), *(["--work", str(given.work)] if given.work else [])]
        )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
