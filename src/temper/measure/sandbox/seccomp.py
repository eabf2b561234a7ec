"""The seccomp filter: which system calls a program in the sandbox is refused, as a BPF program.

A list of what is denied, not of what is allowed: Python and its libraries use new calls from release to release, and
what matters is known. Denied calls fail with EPERM, so that a program sees an error and not a mystery; calls of
another architecture than the interpreter's kill the process, as they would pass by every number in the list.
Source: Linux, Documentation/userspace-api/seccomp_filter.rst; numbers from the kernel's syscall tables.
"""

from __future__ import annotations

import errno
import struct

CLONE_THREAD = 0x00010000

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_X32_BIT = 0x40000000

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine: its column in the table below, and its AUDIT_ARCH."""

DENIED: dict[str, dict[str, tuple[int, int | None]]] = {
    "network": {
        "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
        "accept4": (288, 242), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
    },
    "new processes": {"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
                      "setsid": (112, 157), "setpgid": (109, 154)},
    "other processes": {
        "ptrace": (101, 117), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
        "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
        "migrate_pages": (256, 238), "move_pages": (279, 239),
    },
    "namespaces and mounts": {
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
        "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
        "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
        "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
        "mknod": (133, None), "mknodat": (259, 33),
    },
    "the kernel": {
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
        "request_key": (249, 218), "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273),
        "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
        "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
        "quotactl_fd": (443, 443), "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
        "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
        "personality": (135, 92), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
        "vhangup": (153, 58), "lookup_dcookie": (212, 18), "memfd_secret": (447, 447),
    },
}  # fmt: skip
"""What each group keeps away: system call, and its number on x86_64 and aarch64 (None: it has none there)."""

_CLONE, _CLONE3 = (56, 220), (435, 435)


def known(machine: str) -> bool:
    """Whether there is a filter for this machine (`platform.machine()`)."""
    return machine in _ARCHITECTURES


def assemble(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`, 8 bytes each.

    Threads may be started, processes may not. `clone3` hides its flags behind a pointer that a filter cannot follow,
    so it is answered ENOSYS, and the C library falls back to `clone`.
    """
    column, arch = _ARCHITECTURES[machine]
    numbers = {numbers[column] for calls in DENIED.values() for numbers in calls.values()}
    denied = sorted(number for number in numbers if number is not None)
    head = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        head += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL_PROCESS)]
    head += [
        (_JUMP_EQUAL, 0, 1, _CLONE3[column]),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_JUMP_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_ANY_BIT, 0, 1, CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    # A match jumps over the remaining tests and the final "allow".
    tests = [(_JUMP_EQUAL, len(denied) - index, 0, number) for index, number in enumerate(denied)]
    tail = [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in [*head, *tests, *tail])
