"""What the server counts, in the text form that Prometheus reads.

>>> figures = Figures()
>>> figures.request("chat", "tuned", 200, 0.25)
>>> [line for line in figures.text({}).splitlines() if line.startswith("hone_requests_total")]
['hone_requests_total{endpoint="chat",model="tuned",status="200"} 1']
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

import psutil

from hone.serve.worker import Load

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds


class Figures:
    """Counters since the start. Only the event loop's thread writes them."""

    def __init__(self) -> None:
        self._started = time.time()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._seconds = {"request": _Histogram(), "first_token": _Histogram()}
        self._hung_up = 0

    def request(self, endpoint: str, model: str, status: int, seconds: float) -> None:
        """model: a name that is served, "" where none was found."""
        self._requests[endpoint, model, status] += 1
        if status == 200:
            self._seconds["request"].add(seconds)

    def refused(self, status: int) -> None:
        """Of a request that was not let in."""
        self._requests["none", "", status] += 1

    def first_token(self, seconds: float) -> None:
        self._seconds["first_token"].add(seconds)

    def tokens(self, model: str, prompt: int, answer: int) -> None:
        self._tokens[model, "prompt"] += prompt
        self._tokens[model, "answer"] += answer

    def hung_up(self) -> None:
        self._hung_up += 1

    def text(self, load: Mapping[str, Load], n_jobs: int = 0) -> str:
        """All of it. load: how busy each model is."""
        lines = ["# TYPE hone_requests_total counter"]
        for (endpoint, model, status), n in sorted(self._requests.items()):
            lines.append(f'hone_requests_total{{endpoint="{endpoint}",model="{_safe(model)}",status="{status}"}} {n}')
        lines.append("# TYPE hone_tokens_total counter")
        lines += [
            f'hone_tokens_total{{model="{_safe(m)}",kind="{kind}"}} {n}'
            for (m, kind), n in sorted(self._tokens.items())
        ]
        lines += ["# TYPE hone_hung_up_total counter", f"hone_hung_up_total {self._hung_up}"]
        lines += ["# TYPE hone_open_requests gauge", f"hone_open_requests {n_jobs}"]
        for what in ("growing", "waiting"):
            lines.append(f"# TYPE hone_rows_{what} gauge")
            lines += [f'hone_rows_{what}{{model="{_safe(m)}"}} {getattr(one, what)}' for m, one in load.items()]
        for name, histogram in self._seconds.items():
            lines += histogram.lines(f"hone_{name}_seconds")
        lines += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {self._started:.3f}"]
        lines += ["# TYPE process_resident_memory_bytes gauge",
                  f"process_resident_memory_bytes {psutil.Process().memory_info().rss}"]  # fmt: skip
        return "\n".join(lines) + "\n"


class _Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> list[str]:
        found, total = [f"# TYPE {name} histogram"], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {self._sum:.6f}", f"{name}_count {total}"]


def _safe(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
