"""What `test_sharing.py` starts three times: one process of a group, without a launcher and without transformers."""

import json
import sys

from hone.errors import HoneError
from hone.processes import any_of, everybodys, from_primary, joined, rank, shared


class Known(HoneError):
    """A mistake that the caller can live with."""


def squares(numbers: "list[int] | range") -> list[list[int]]:
    return [[rank(), number * number] for number in numbers]


def refuse(kind: type[HoneError]) -> None:
    raise kind("no sandbox", where="process 1", fix="make one")


def main() -> None:
    found = {}
    with joined():
        found["shared"] = shared(range(7), squares)
        found["few"] = shared(range(1), squares)
        found["alone"] = from_primary(lambda: shared(range(3), squares))
        found["large"] = [len(text) for text in everybodys(lambda: "x" * (10 << 20) * (rank() == 2))]
        try:
            everybodys(lambda: refuse(Known) if rank() == 1 else None, mistakes=(Known,))
        except Known as error:
            found["mistake"] = str(error)
        found["after"] = any_of([rank() == 2])
        print(json.dumps(found), flush=True)
        shared(range(3), lambda mine: refuse(HoneError) if rank() == 1 else squares(mine))


if __name__ == "__main__":
    try:
        main()
    except HoneError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
