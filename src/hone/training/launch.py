"""Starting the processes of a training on this machine, as torchrun does, and ending as one command.

torchrun's agent starts them, tells each its number, passes a signal on to all, ends all when one fails, and starts all
again after a loss (`max_restarts`). What it would say about that is left out: the process that failed has said why.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hone.config.sections.launch import LaunchSection
from hone.errors import HoneError, first_line
from hone.hardware import count_cpus, read_cgroup
from hone.processes import BY_HONE, GO_ON, INTERRUPTED, LOST_CODE, MEETING

SAVING_S = 600  # after a signal a checkpoint is written first


def launch(section: LaunchSection, arguments: Sequence[str]) -> None:
    """Run `hone ARGUMENTS` in the processes that the section asks for, until all have ended.

    Raises:
        SystemExit: it did not end well, and the process that failed has said why.
        HoneError: a process was killed, or the machines do not find each other.
    """
    processes = section.nproc_per_node or 1
    command = ["-m", "hone", *arguments]
    try:
        with _for_processes(section, processes):
            elastic_launch(_config(section, processes), sys.executable)(*command)
    except ChildFailedError as error:
        raise _ended(error) from None
    except SignalException as stopped:
        raise SystemExit(INTERRUPTED) from stopped
    except (RendezvousError, OSError, RuntimeError) as error:
        raise HoneError(
            f"the processes could not be started: {first_line(error)}",
            fix="look whether all machines reach rdzv_endpoint and were started with the same rdzv_id and nnodes",
        ) from error


@contextlib.contextmanager
def _for_processes(section: LaunchSection, processes: int) -> Iterator[None]:
    """Within it the environment is that of the processes, and the agent's own log is silent; they have their own."""
    disabled, environ = logging.root.manager.disable, dict(os.environ)
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(count_cpus(read_cgroup().cpus).usable) // processes)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a machine without a name in DNS is no concern of a reader
    os.environ[BY_HONE] = "1"
    if section.rdzv_endpoint and section.rdzv_backend == "c10d":
        # each attempt with a store of its own: torch does not tell a machine that comes later where the common one is
        os.environ |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", MEETING: section.rdzv_endpoint}
    try:
        yield
    finally:
        logging.disable(disabled)
        os.environ.clear()
        os.environ.update(environ)


def _config(section: LaunchSection, processes: int) -> LaunchConfig:
    least, _, most = str(section.nnodes).partition(":")
    address, more = None, dict[str, Any]()
    if str(section.nnodes) != "1" and section.rdzv_endpoint:
        address, is_host = _own_address(section.rdzv_endpoint)
        more["is_host"] = is_host
    if section.rdzv_backend == "static":
        more = {"rank": section.node_rank}
    hears = ["SIGTERM", "SIGINT"]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` asks for that
        hears.append("SIGHUP")
    return LaunchConfig(
        min_nodes=int(least),
        max_nodes=int(most or least),
        nproc_per_node=processes,
        run_id=section.rdzv_id,
        rdzv_backend=section.rdzv_backend,
        rdzv_endpoint=section.rdzv_endpoint or "localhost:0",
        rdzv_configs=more,
        local_addr=address,
        max_restarts=section.max_restarts,
        signals_to_handle=",".join(hears),
        shutdown_timeout=SAVING_S,
    )


def _own_address(endpoint: str) -> tuple[str, bool]:
    """This machine's address on the way to the endpoint, and whether the endpoint is this machine.

    torch would take what the host's name stands for, which may be an address that the others do not reach.

    Raises:
        HoneError: the endpoint is no HOST:PORT, or its host is not known here.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        there = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:  # nothing is sent
            way.connect((there, int(port)))
            here = str(way.getsockname()[0])
    except (OSError, ValueError) as error:
        fix = "write HOST:PORT with a name or address that this machine reaches, e.g. first:29500"
        raise HoneError(f"rdzv_endpoint is '{endpoint}': {error}", fix=fix) from None
    names = [name for name, found in psutil.net_if_addrs().items() if here in [one.address for one in found]]
    if names:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])
    return here, here == there or there.startswith("127.")


def _ended(error: ChildFailedError) -> BaseException:
    """How the command ends, by how its processes did."""
    codes = {number: failure.exitcode for number, failure in error.failures.items()}
    if INTERRUPTED in codes.values():
        return SystemExit(INTERRUPTED)
    killed = {number: signal.Signals(-code).name for number, code in codes.items() if code < 0}
    if by_others := {number: name for number, name in killed.items() if name != "SIGTERM"}:
        number, name = min(by_others.items())
        why = "; SIGKILL is most often the answer to too little memory" if name == "SIGKILL" else ""
        return HoneError(f"process {number} of the training was ended by {name}{why}", fix=GO_ON)
    if LOST_CODE in codes.values():
        return HoneError("the connection to another machine of the training is lost", fix=GO_ON)
    return SystemExit(1)  # a process has said why
