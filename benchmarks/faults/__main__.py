"""All fault scripts, one after the other: `python benchmarks/faults`, or some trials of each with --quick.

Exit code 1: one of them lost something.
"""

import argparse
import sys
from pathlib import Path

import corruptions
import kills
import powerloss
import signals
import straced
import sweep

ALL = {"kills": kills, "sweep": sweep, "corruptions": corruptions, "signals": signals, "powerloss": powerloss}
NEEDS_STRACE = ("sweep", "powerloss")
QUICK = {
    "kills": ["--kills", "3", "--kinds", "frozen with cache"],
    "sweep": ["--parts", "model", "--share", "1/60"],
    "corruptions": ["--trials", "6", "--scenes", "killed full"],
    "signals": ["--signals", "SIGTERM", "--stages", "training,saving the model"],
    "powerloss": ["--parts", "model", "--share", "1/20"],
}


def main(argv: list[str]) -> int:
    """Run them; 1 if one lost something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some trials of each")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args(argv)
    code = 0
    for name, script in ALL.items():
        print(f"\n## {name}\n", flush=True)
        if name in NEEDS_STRACE and (why := straced.available()):
            print(f"skipped: {why}")
            continue
        code |= script.main(
            [*(QUICK[name] if given.quick else []), *(["--work", str(given.work)] if given.work else [])]
        )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
