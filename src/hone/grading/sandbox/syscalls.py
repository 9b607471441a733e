"""The system calls a sandbox may not make, as a seccomp program for bubblewrap.

A list of what is denied, not of what is allowed: the rest of the isolation (namespaces, no capabilities, a read-only
root, limits) hold without it, and it takes away what they leave reachable: new namespaces and processes, sockets,
tracing, kernel interfaces with a history of holes, memory that no limit counts. Denied calls fail with EPERM.

>>> len(seccomp_program()) % 8      # doctest: +SKIP
0
"""

import errno
import platform
import tempfile
from typing import Any

from hone.grading.sandbox import IsolationError

KNOWN_MACHINES = ("x86_64", "aarch64")  # elsewhere the arguments of clone have another order, or nobody has tried
CLONE_THREAD = 0x00010000
PDEATHSIG = 1  # prctl: with it a program would outlive this process, should that be killed
TERMINAL_INPUT = (0x5412, 0x541C)  # ioctl TIOCSTI and TIOCLINUX put characters into the terminal's input

DENIED = {
    "processes": "fork vfork",
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_open pidfd_getfd "
    "pidfd_send_signal sched_setscheduler sched_setattr sched_setparam setpriority ioprio_set",
    "namespaces and mounts": "unshare setns mount umount2 umount pivot_root chroot move_mount open_tree fsopen "
    "fsconfig fsmount fspick mount_setattr swapon swapoff quotactl quotactl_fd acct sethostname setdomainname",
    "network": "socket socketpair connect bind listen accept accept4",
    "kernel": "bpf perf_event_open kexec_load kexec_file_load init_module finit_module delete_module create_module "
    "reboot syslog iopl ioperm modify_ldt personality lookup_dcookie vhangup nfsservctl settimeofday "
    "clock_settime clock_adjtime adjtimex userfaultfd uselib ustat sysfs _sysctl fanotify_init",
    "keys": "keyctl add_key request_key",
    "asynchronous": "io_uring_setup io_uring_enter io_uring_register io_setup io_submit",
    "uncounted memory": "memfd_create memfd_secret shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop "
    "semctl semtimedop mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr "
    "mbind set_mempolicy migrate_pages move_pages",
    "files by handle": "name_to_handle_at open_by_handle_at",
}


def seccomp_program() -> bytes:
    """The compiled filter for this machine.

    Raises:
        IsolationError: libseccomp or its binding is missing, or the architecture is not known.
    """
    machine = platform.machine()
    if machine not in KNOWN_MACHINES:
        known = " and ".join(KNOWN_MACHINES)
        raise IsolationError(f"the filter of system calls is written for {known}, not for {machine}")
    seccomp = _binding()
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    no = seccomp.ERRNO(errno.EPERM)
    for name in " ".join(DENIED.values()).split():
        if seccomp.resolve_syscall(seccomp.system_arch(), name) != -1:  # not every call exists on every machine
            rules.add_rule(no, name)
    rules.add_rule(no, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))
    # its arguments lie in memory, where no filter can look: glibc falls back to clone
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    rules.add_rule(no, "prctl", seccomp.Arg(0, seccomp.EQ, PDEATHSIG))
    rules.add_rule(no, "prlimit64", seccomp.Arg(0, seccomp.NE, 0))  # of other processes
    for request in TERMINAL_INPUT:
        rules.add_rule(no, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _binding() -> Any:
    try:
        import pyseccomp  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise IsolationError("pyseccomp is not installed", fix="pip install pyseccomp") from None
    except (RuntimeError, OSError) as error:  # it looks for the library when it is imported
        fix = "Debian, Ubuntu: sudo apt-get install libseccomp2; Fedora: sudo dnf install libseccomp"
        raise IsolationError(f"the library libseccomp is missing ({error})", fix=fix) from error
    return pyseccomp
