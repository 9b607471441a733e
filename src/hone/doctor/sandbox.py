"""Can generated programs be run safely here? Three lines of `hone doctor`, each answered by trying, never from files.

bubblewrap as this user, the filter of system calls, and the self-test that every grading begins with: a program of
ours tries to break out. A warning each, with the step that repairs it: only generated programs need any of this.

>>> check_self_test("Linux").value      # doctest: +SKIP
'16 ways out of the box are closed, 3 known programs judged right (0.3 s)'
"""

import time
from typing import Any

from hone.doctor.check import Check
from hone.errors import HoneError, first_line
from hone.hardware import run_command

CONTAINER_ADVICE = (
    "inside a container, start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined "
    "(Podman: --security-opt unmask=ALL), or grade outside it"
)
# A fragment of bwrap's complaint -> the way out; the first that occurs wins.
SANDBOX_ADVICE = (
    (
        ("uid map", "RTM_NEWADDR"),
        "Ubuntu's AppArmor keeps user namespaces from bwrap; load its profile: sudo apt-get install apparmor-profiles "
        "&& sudo ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ "
        "&& sudo systemctl reload apparmor",
    ),
    (("mount proc", "mount tmpfs", "newroot"), CONTAINER_ADVICE),
    (
        ("namespace",),
        f"this kernel or container allows no user namespaces; Debian: sudo sysctl kernel.unprivileged_userns_clone=1; "
        f"{CONTAINER_ADVICE}",
    ),
)
WITHOUT_SANDBOX = "only running generated programs needs it; everything else works"


def check_sandbox(bwrap: str | None, system: str, timeout_s: float = 5.0) -> Check:
    """Can generated programs be run in bubblewrap, as this user? Answered by running one, never from files."""
    data: dict[str, Any] = {"bwrap": bwrap, "works": False, "reason": None}
    if system != "Linux":
        advice = "generated programs cannot be run safely here; everything else works. Run them on Linux"
        return Check("sandbox", "warn", f"not available on {'macOS' if system == 'Darwin' else system}", advice, data)
    if bwrap is None:
        advice = f"install it (Debian, Ubuntu: sudo apt-get install bubblewrap); {WITHOUT_SANDBOX}"
        return Check("sandbox", "warn", "bubblewrap is not installed", advice, data)
    isolate = ["--unshare-all", "--die-with-parent", "--new-session"]
    mounts = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    code, output = run_command([bwrap, *isolate, *mounts, "true"], timeout_s)
    if code == 0:
        return Check("sandbox", "ok", "bubblewrap works", None, {**data, "works": True})
    reason = first_line(output) or f"bwrap ended with code {code}"
    ways = (advice for fragments, advice in SANDBOX_ADVICE if any(fragment in output for fragment in fragments))
    advice = f"{next(ways, CONTAINER_ADVICE)}; {WITHOUT_SANDBOX}"
    return Check("sandbox", "warn", f"bubblewrap is here but fails: {reason}", advice, {**data, "reason": reason})


def check_libseccomp(system: str) -> Check:
    """Can the filter of system calls be built, by libseccomp and its binding?"""
    if system != "Linux":
        return Check("libseccomp", "warn", f"not available on {system}", WITHOUT_SANDBOX, {"works": False})
    from hone.grading.sandbox.syscalls import seccomp_program

    try:
        size = len(seccomp_program())
    except HoneError as error:
        advice = f"{error.fix}; {WITHOUT_SANDBOX}" if error.fix else WITHOUT_SANDBOX
        return Check("libseccomp", "warn", error.what, advice, {"works": False, "reason": error.what})
    steps = size // 8  # a struct sock_filter
    return Check("libseccomp", "ok", f"the filter of system calls has {steps} steps", None, {"works": True})


def check_self_test(system: str) -> Check:
    """Does a box hold what a program of ours tries, and do known programs get their verdicts?"""
    if system != "Linux":
        return Check("self-test", "warn", f"not available on {system}", WITHOUT_SANDBOX, {"held": False})
    from hone.grading.sandbox.selftest import CANARIES, KNOWN, ready

    began = time.perf_counter()
    try:
        with ready("strict"):
            seconds = time.perf_counter() - began
    except HoneError as error:
        return Check("self-test", "warn", error.what, WITHOUT_SANDBOX, {"held": False, "reason": error.what})
    tried = len(CANARIES) + 1  # and its environment
    value = f"{tried} ways out of the box are closed, {len(KNOWN)} known programs judged right ({seconds:.1f} s)"
    return Check("self-test", "ok", value, None, {"held": True, "seconds": seconds})
