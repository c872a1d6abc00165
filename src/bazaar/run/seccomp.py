"""The seccomp filter of containers that share the host's kernel.

A deny list: every call an ordinary program makes is allowed; refused with EPERM is what
administers the machine, looks into other processes or has a long history of kernel faults,
the calls docker's default profile withholds from a container without extra capabilities
(docs.docker.com/engine/security/seccomp). `clone3` answers ENOSYS, so that libraries fall
back to `clone`, whose flags a filter can see.
"""

from __future__ import annotations

from typing import Any

CLONE_NAMESPACES = 0x7E020000  # NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET, NEWNS: sched.h
AF_VSOCK = 40
EPERM, ENOSYS = 1, 38

REFUSED = """
    acct add_key bpf clock_adjtime clock_settime create_module delete_module fanotify_init
    finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
    kexec_load keyctl lookup_dcookie mbind mount mount_setattr move_mount move_pages
    name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd
    pivot_root process_madvise query_module quotactl quotactl_fd reboot request_key
    set_mempolicy set_mempolicy_home_node setns settimeofday stime swapoff swapon sysfs
    _sysctl syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
""".split()  # noqa: SIM905


def default() -> dict[str, Any]:
    """The `linux.seccomp` object of a bundle."""
    import platform

    architectures = {
        "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    }
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures.get(platform.machine(), []),
        "syscalls": [
            {"names": list(REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
            *(
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": EPERM,
                    "args": [
                        {"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}
                    ],
                }
                for bit in (1 << shift for shift in range(32))
                if bit & CLONE_NAMESPACES
            ),
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": EPERM,
                "args": [{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
