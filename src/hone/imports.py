"""How torch and transformers come into a process: with threads that sleep, and without a search for garbage."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def calm_threads() -> None:
    """Let idle OpenMP threads sleep after a thousand turns of waiting. Only before torch is imported does it work.

    GNU's library spins for milliseconds, which is right on a machine of one's own. Next to another busy program the
    spinning thread holds the core that the waited-for thread needs: a training step then takes ten times as long, and
    with sleep about twice. A thousand turns cost nothing on an idle machine. Who has set a policy keeps it.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


@contextmanager
def importing() -> Iterator[None]:
    """Within it torch and transformers are imported in three quarters of the time: nobody looks for garbage.

    They define half a million objects, none of which is garbage, and Python would look through them again and again.
    A process that has frozen its own objects (`gc.freeze`), as `hone` does when it starts, has these frozen too.
    """
    if "transformers.modeling_utils" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if gc.get_freeze_count():
            gc.freeze()
