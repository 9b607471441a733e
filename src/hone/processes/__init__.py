"""Several processes that train together: which one is first, what they agree on, and one message when it ends badly.

A launcher (torchrun, accelerate, or `hone train nproc_per_node=2`) starts the same command several times and tells each
process in its environment which one it is. `joined` makes a group of them. The first one, the primary, holds the run
folder, measures, writes and speaks; the others compute their share of each step, and wait for it everywhere else.

>>> with joined():                                                                     # doctest: +SKIP
...     bf16 = from_primary(measure_precision)
"""

from hone.processes.agree import (
    any_of,
    everybodys,
    from_primary,
    primary_first,
    refuse_disagreement,
    shared,
    totals,
    union,
)
from hone.processes.group import (
    BY_HONE,
    GO_ON,
    INTERRUPTED,
    LOST_CODE,
    MEETING,
    Elsewhere,
    causes_named,
    joined,
    on_one_machine,
    on_this_machine,
    primary,
    rank,
    refuse_several,
    started_together,
    world,
)

__all__ = [
    "BY_HONE",
    "GO_ON",
    "INTERRUPTED",
    "LOST_CODE",
    "MEETING",
    "Elsewhere",
    "any_of",
    "causes_named",
    "everybodys",
    "from_primary",
    "joined",
    "on_one_machine",
    "on_this_machine",
    "primary",
    "primary_first",
    "rank",
    "refuse_disagreement",
    "refuse_several",
    "shared",
    "started_together",
    "totals",
    "union",
    "world",
]
