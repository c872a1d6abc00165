"""Installing packages in an overlay over a base; runs in namespaces of its own, as pid 1."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from bazaar.host import mounts

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "ftp_proxy")
# What every build leaves and no image needs.
LEFT = (
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/lib/dpkg/status-old",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/log/apt",
)
# linux/kdev_t.h numbers of the devices maintainer scripts may count on
DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}


def main(plan_file: str) -> None:
    """Install what the plan names; leaves the overlay's upper directory and the versions."""
    plan: dict[str, Any] = json.loads(Path(plan_file).read_text())
    folder = Path(plan["folder"])
    root = folder / "root"
    mounts.overlay([Path(plan["base"])], root, upper=folder / "upper", work=folder / "work")
    _furnish(root, plan)
    environment = {
        **ENVIRONMENT,
        **{name: os.environ[name] for name in PROXIES if name in os.environ},
    }
    environment["APT_CONFIG"] = "/tmp/apt.conf"  # noqa: S108 - of the root, a tmpfs of ours
    install = ["apt-get", "-y", "-q", "--no-install-recommends", "install", *plan["packages"]]
    code = subprocess.run(["chroot", str(root), *install], env=environment, check=False).returncode
    if code:
        sys.exit(code)
    query = ["chroot", str(root), "dpkg-query", "-W", "-f", "${Package} ${Version}\n"]
    versions = subprocess.run(query, env=ENVIRONMENT, check=True, capture_output=True).stdout
    (folder / "versions").write_bytes(versions)
    for name in LEFT:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    mounts.unmount_below(root)


def _furnish(root: Path, plan: dict[str, Any]) -> None:
    """What maintainer scripts and apt need, none of which may end up in the layer."""
    mounts.mount("proc", root / "proc", "proc")
    mounts.mount("tmpfs", root / "tmp", "tmpfs", options="mode=1777")
    mounts.mount("tmpfs", root / "dev", "tmpfs", mounts.MS_NOSUID, "mode=755")
    for name, (major, minor) in DEVICES.items():
        os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        (root / "dev" / name).chmod(0o666)
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ):
        (root / "dev" / name).symlink_to(target)
    (root / "dev" / "shm").mkdir(mode=0o1777)
    mounts.bind(Path(plan["lists"]), root / "var/lib/apt/lists", read_only=True)
    mounts.bind(Path(plan["folder"]) / "archives", root / "var/cache/apt/archives")
    # The host's resolver, bound over the root's empty file.
    if Path("/etc/resolv.conf").exists():
        mounts.bind(Path("/etc/resolv.conf").resolve(), root / "etc/resolv.conf", read_only=True)
    if Path("/etc/hosts").exists() and (root / "etc/hosts").exists():
        mounts.bind(Path("/etc/hosts"), root / "etc/hosts", read_only=True)
    lines = [
        *plan["settings"],
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        'APT::Keep-Downloaded-Packages "false";',
    ]
    if plan["certificates"]:
        shutil.copy(plan["certificates"], root / "tmp/certificates.crt")
        lines = [line for line in lines if not line.lower().startswith("acquire::https::cainfo")]
        lines.append('Acquire::https::CaInfo "/tmp/certificates.crt";')
    (root / "tmp/apt.conf").write_text("\n".join(lines) + "\n")
