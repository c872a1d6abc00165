"""The root that all local machines share: made of the distribution's packages once, and cached.

It holds what a fresh Debian machine in a cloud has, systemd and sshd above all. What makes a
machine one of its own (keys, name, address) is written over it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from bazaar.errors import MachineError, UsageError
from bazaar.host import apt_sources, commands, locks, mounts, paths

Progress = Callable[[str], None]
FORMAT = "1"  # raised when roots are made differently, so that old ones are not taken for new
SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "ca-certificates", "curl"),
    *("iproute2", "iputils-ping", "procps", "kmod", "less", "python3"),
    # What kubelet and kube-proxy call.
    *("nftables", "iptables", "conntrack", "ethtool", "socat"),
)
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "force-unsafe-io",
)
_SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
"""
# The kernel is everybody's: nothing of it is changed but the network, which is the machine's.
_NO_SYSCTLS = ("50-pid-max.conf", "99-protect-links.conf")
# What works at times of its own would disturb what is measured.
_NO_UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *(
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "console-getty.service",
        "systemd-pstore.service",
    ),
)
_SETUP_UNIT = """\
[Unit]
Description=Control groups and bpffs for what runs containers
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/machine-setup

[Install]
WantedBy=sysinit.target
"""
_SETUP = """\
#!/bin/sh
# systemd-nspawn shows the controllers of cgroup v1 read-only.
for group in /sys/fs/cgroup/*/; do
  mountpoint -q "$group" && mount -o remount,rw,bind "$group"
done
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
exit 0
"""


def needs() -> None:
    """MissingError, with the way to get it, where this machine cannot make such a root."""
    commands.find("mmdebstrap", package="mmdebstrap")
    commands.find("unshare", package="util-linux")


def place(packages: Sequence[str] = ()) -> Path:
    """Where the root with these packages besides lies, or will: named by all it is made of."""
    for name in packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise UsageError(f"'{name}' is no package's name")
    certificates = [path.read_text() for path in _own_certificates()]
    text = "\n".join(
        [
            *(FORMAT, SUITE, _SSHD, _SETUP_UNIT, _SETUP, *_DPKG_OPTIONS, *_NO_SYSCTLS, *_NO_UNITS),
            *(*_sources(), *apt_sources.settings(), *sorted({*PACKAGES, *packages}), *certificates),
        ]
    )
    return _folder() / f"{SUITE}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def make(packages: Sequence[str], progress: Progress) -> Path:
    """The root with these packages besides; made when it is not there. Raises MachineError."""
    root = place(packages)
    if root.is_dir():
        return root
    needs()
    with locks.waiting(_folder() / "lock"):
        if root.is_dir():
            return root
        building = _folder() / "building"
        # What a builder that was killed left.
        mounts.unmount_below(building)
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            _bootstrap(building, packages, progress)
            _finish(building / "root")
            (building / "root").rename(root)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return root


def _folder() -> Path:
    return paths.close(paths.cache() / "machines")


def _sources() -> list[str]:
    return apt_sources.for_suite(SUITE)


def _own_certificates() -> list[Path]:
    """The authorities that this machine's administrator trusts: its way out may need them."""
    return sorted(_CERTIFICATES.glob("*.crt"))


def _bootstrap(folder: Path, packages: Sequence[str], progress: Progress) -> None:
    sources = _sources()
    if not sources:
        raise MachineError(
            f"this machine has no apt source of its distribution to make {SUITE} of",
            hint="name one in /etc/apt/sources.list.d",
        )
    (folder / "sources.list").write_text("\n".join(sources) + "\n")
    (folder / "apt.conf").write_text("\n".join(apt_sources.settings()) + "\n")
    copies = [f'cp {shlex.quote(str(path))} "$1{_CERTIFICATES}/"' for path in _own_certificates()]
    hooks = [*copies, 'chroot "$1" update-ca-certificates'] if copies else []
    command = [
        # Mounts and processes of its own, that end with us: when we are killed, nothing stays.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
        f"--aptopt={folder / 'apt.conf'}",
        '--aptopt=Acquire::Languages "none";',
        '--aptopt=APT::Sandbox::User "root";',  # the folder is for root alone
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        f"--include={','.join(dict.fromkeys([*PACKAGES, *packages]))}",
        *(f"--customize-hook={hook}" for hook in hooks),
        *(SUITE, str(folder / "root"), str(folder / "sources.list")),
    ]
    progress(f"making the base image of {SUITE}, about a minute")
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }

    def heard(line: str) -> None:
        if line.startswith("I: "):
            progress(f"base image: {line.removeprefix('I: ')}")

    code, last = commands.follow(command, heard, environment)
    if code != 0:
        said = [line for line in last if line.startswith("E:")] or last[-3:]
        raise MachineError(
            f"the base image could not be made: {'; '.join(said) or 'mmdebstrap said nothing'}",
            hint="does `apt-get update` work here? is there space in the cache?",
        )


def _finish(root: Path) -> None:
    for path in (root / "etc/ssh").glob("ssh_host_*"):
        path.unlink()  # each machine has its own
    for path in (root / "var/log").glob("*.log"):
        path.unlink()
    (root / "etc/ssh/sshd_config.d/bazaar.conf").write_text(_SSHD)
    for name in _NO_SYSCTLS:
        (root / "etc/sysctl.d" / name).symlink_to("/dev/null")
    units = root / "etc/systemd/system"
    for name in _NO_UNITS:
        with contextlib.suppress(FileExistsError):
            (units / name).symlink_to("/dev/null")
    (units / "machine-setup.service").write_text(_SETUP_UNIT)
    (units / "sysinit.target.wants").mkdir(exist_ok=True)
    (units / "sysinit.target.wants/machine-setup.service").symlink_to("../machine-setup.service")
    setup = root / "usr/local/sbin/machine-setup"
    setup.write_text(_SETUP)
    setup.chmod(0o755)
    (root / "var/lib/containerd").mkdir(mode=0o711, exist_ok=True)
