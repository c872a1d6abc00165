"""A fresh machine: a Debian root of its own, booted by systemd-nspawn on this machine's network.

It has what this machine reaches its mirrors by (apt's sources and settings, pip's, Go's,
certificates) and nothing else of it; ``/tmp``, ``/run``, ``/sys/fs/bpf`` and the processes are
its own. The root's base is made once and kept in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bazaar.host import apt_sources, mounts, paths

SUITE = "bookworm"
# git, python3 and certificates; the rest is what makes a root a machine that boots.
PACKAGES = ("git", "python3", "ca-certificates", "systemd", "systemd-sysv", "dbus")
USER = "visitor"
CERTIFICATES = Path("/usr/local/share/ca-certificates")
PIP_FILES = ("/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.pip/pip.conf")
PLAIN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
# How programs are told to reach what they download from.
NETWORK_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
GO_VARIABLES = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE")
BOOT_SECONDS = 60.0
HALT_SECONDS = 30.0
RTMIN = 34  # of the C library: systemd counts its signals from there


@dataclass
class Done:
    """A program that ended in the machine: what it wrote, and when."""

    words: tuple[str, ...]
    code: int
    seconds: float
    stdout: str
    stderr: str
    silence: float  # the longest time in which it wrote nothing
    stamped: list[str] = field(default_factory=list)  # each line behind its second

    def __str__(self) -> str:
        lines = "\n".join(self.stamped)
        return f"{' '.join(self.words)}: exit {self.code} after {self.seconds:.1f} s\n{lines}"


class Machine:
    """The machine while it runs; `booted` makes and ends it."""

    def __init__(self, name: str, root: Path, binds: dict[Path, str]) -> None:
        self.name, self.root, self.binds = name, root, binds
        self.environment = {**PLAIN, **_network_environment(root, binds)}
        self.process: subprocess.Popen[bytes] | None = None
        self.leader = 0
        self.first: Done | None = None  # what a fixture ran first

    def boot(self) -> None:
        """Start it and wait until its systemd has nothing left to start."""
        groups = [str(group / "cgroup.procs") for group in _own_groups(self.name)]
        command = [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",  # no systemd need run here
            "--keep-unit",
            f"--machine={self.name}",
            f"--directory={self.root}",
            "--capability=all",
            "--system-call-filter=@keyring bpf perf_event_open",
            "--resolv-conf=copy-host",
            "--console=pipe",
            "--bind=/dev/kmsg",
            *(f"--bind{option}" for option in self._bind_options()),
        ]
        # In control groups of its own, so that two machines do not meet in one.
        enter = 'for group; do [ "$group" = -- ] && break; echo $$ >"$group"; shift; done; shift'
        with open(f"{self.root}.console", "wb") as console:
            self.process = subprocess.Popen(
                [
                    *("sh", "-ec", f'{enter}; exec "$@"', "sh", *groups, "--"),
                    # Halted when the test is killed: nobody else would end it.
                    *("setpriv", "--pdeathsig", "TERM", "--", *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"},
                start_new_session=True,  # a Ctrl-C here is not for it
            )
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = Path(f"{self.root}.console").read_text(errors="replace")
                raise AssertionError(f"{self.name} does not boot: {said[-2000:]}")
            self.leader = self.leader or _first_process(self.process.pid)
            if self.leader and self._state() in ("running", "degraded"):
                return
            time.sleep(0.1)

    def _bind_options(self) -> Iterator[str]:
        for source, target in self.binds.items():
            read_only = "" if target == "/sys/fs/bpf" else "-ro"
            yield f"{read_only}={source}:{target}"

    def _state(self) -> str:
        done = subprocess.run(
            [*self._enter(), "systemctl", "is-system-running"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    def _enter(self) -> list[str]:
        """Into the machine's namespaces, with an environment of its own alone."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return [
            *("nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net"),
            *("--pid", "--cgroup", "--root", "--wd", "--", "env", "-i", *variables),
        ]

    def run(
        self, *words: str, folder: str = "/", timeout: float = 120.0, user: str = "root"
    ) -> Done:
        """Run a program as in a login session: nothing of it is a terminal, and what it leaves
        behind lives on. Its lines are stamped with the seconds since its start.
        """
        session = ["systemd-run", "--quiet", "--scope", "--collect", "--working-directory", folder]
        if user != "root":
            words = ("runuser", "-u", user, "--", "env", f"HOME=/home/{user}", *words)
        process = subprocess.Popen(
            [*self._enter(), *session, "--", "env", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        began = time.monotonic()
        written: list[tuple[float, str, str]] = []

        def read(name: str, stream) -> None:
            for line in stream:
                written.append((time.monotonic() - began, name, line))

        streams = (("out", process.stdout), ("err", process.stderr))
        readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in streams]
        for reader in readers:
            reader.start()
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            written.append((time.monotonic() - began, "err", f"[killed after {timeout:.0f} s]\n"))
        seconds = time.monotonic() - began
        for reader in readers:
            reader.join(2)  # not for ever: a daemon may hold the pipe
        times = [0.0, *(stamp for stamp, _, _ in written), seconds]
        return Done(
            words,
            code,
            seconds,
            "".join(line for _, name, line in written if name == "out"),
            "".join(line for _, name, line in written if name == "err"),
            max(later - earlier for earlier, later in itertools.pairwise(times)),
            [f"{stamp:7.1f} {name} {line.rstrip()}" for stamp, name, line in written],
        )

    def look(self, command: str) -> list[str]:
        """The lines a shell command prints there, sorted; nothing of it is left."""
        return sorted(self.run("sh", "-c", command).stdout.splitlines())

    def halt(self) -> None:
        """End it: asked first, then told. Everything in it ends with its first process."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                # systemd(1): SIGRTMIN+3 halts the machine.
                os.kill(self.leader or self.process.pid, RTMIN + 3 if self.leader else 9)
            try:
                self.process.wait(HALT_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.leader, signal.SIGKILL)
                try:
                    self.process.wait(5)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()


@contextlib.contextmanager
def booted(repository: Path, name: str) -> Iterator[Machine]:
    """A fresh machine that sees ``repository`` read-only at /srv/bazaar; gone afterwards."""
    base = _base()
    folder = base.parent
    _sweep(folder)
    root, bpf = folder / name, folder / f"{name}.bpf"
    machine: Machine | None = None
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
        bpf.mkdir()
        # An instance of its own: what it pins, this machine does not see.
        mounts.mount("bpf", bpf, "bpf")
        (root / "etc/hostname").write_text(name + "\n")
        machine = Machine(name, root, {repository: "/srv/bazaar", bpf: "/sys/fs/bpf"})
        machine.boot()
        yield machine
    finally:
        if machine is not None:
            machine.halt()
        _remove(folder, name)


def _remove(folder: Path, name: str) -> None:
    """Everything of a machine that does not run."""
    root, bpf = folder / name, folder / f"{name}.bpf"
    mounts.unmount_below(bpf)
    mounts.unmount_below(root)
    _remove_groups(name)
    for path in (root, bpf, Path(f"/run/systemd/nspawn/propagate/{name}")):
        shutil.rmtree(path, ignore_errors=True)
    Path(f"{root}.console").unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """What tests that were killed left: their machines ended with them."""
    for path in folder.iterdir():
        match = re.fullmatch(r"[a-z]+(\d+)", path.name)
        if match and not Path("/proc", match[1]).exists():
            _remove(folder, path.name)


def _base() -> Path:
    """The root all fresh machines begin as, made by mmdebstrap from this machine's mirrors."""
    lines = apt_sources.for_suite(SUITE)
    assert lines, "this machine has no apt source of its distribution"
    folder = paths.cache() / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    certificates = sorted(CERTIFICATES.glob("*.crt"))
    text = "\n".join([*lines, *PACKAGES, *(path.read_text() for path in certificates)])
    base = folder / f"fresh-base-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if base.is_dir():
        return base
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        sources, settings = Path(temporary) / "sources.list", Path(temporary) / "apt.conf"
        sources.write_text("\n".join(lines) + "\n")
        settings.write_text("\n".join(apt_sources.settings()) + "\n")
        made = Path(temporary) / "root"
        copies = (f'cp "{path}" "$1{CERTIFICATES}/"' for path in certificates)
        hooks = [*copies, 'chroot "$1" update-ca-certificates', f'chroot "$1" useradd -m {USER}']
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
                *("--format=directory", f"--aptopt={settings}", f"--include={','.join(PACKAGES)}"),
                *(f"--customize-hook={hook}" for hook in hooks),
                *(SUITE, str(made), str(sources)),
            ],
            check=True,
            timeout=600,
        )
        for file in filter(os.path.exists, PIP_FILES):
            (made / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, made / file.lstrip("/"))
        (made / "etc/machine-id").write_text("")
        made.rename(base)
    return base


def _network_environment(root: Path, binds: dict[Path, str]) -> dict[str, str]:
    """This machine's variables for pip, Go, certificates and proxies, as far as they hold there.

    A folder that one of them names is shown to the machine too when something is in it.
    """
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        if not name.startswith("PIP_") and name not in NETWORK_VARIABLES:
            if name.lower() in ("http_proxy", "https_proxy", "no_proxy"):
                found[name] = value
            continue
        if value.startswith("/") and not (root / value.lstrip("/")).exists():
            here = Path(value)
            if not here.is_dir() or not any(here.iterdir()):
                continue
            binds[here] = value
        found[name] = value
    if shutil.which("go"):
        said = subprocess.run(
            ["go", "env", "-json", *GO_VARIABLES], capture_output=True, check=True, cwd="/"
        )
        found |= {name: value for name, value in json.loads(said.stdout).items() if value}
    return found


def _first_process(nspawn: int) -> int:
    """The machine's own process 1, by this machine's number; 0 while there is none."""
    waiting = [nspawn]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            for child in map(int, children):
                status = Path(f"/proc/{child}/status").read_text()
                numbers = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()
                if len(numbers) > 2 and numbers[-1] == "1":
                    return child
                waiting.append(child)
    return 0


def _hierarchies() -> list[Path]:
    """The hierarchies systemd keeps its units in: v2, and its own of v1."""
    return [
        Path(point.target)
        for point in mounts.mounted()
        if point.kind == "cgroup2"
        or (point.kind == "cgroup" and "name=systemd" in point.super_options)
    ]


def _own_groups(name: str) -> list[Path]:
    groups = [hierarchy / name for hierarchy in _hierarchies()]
    for group in groups:
        group.mkdir(exist_ok=True)
    return groups


def _remove_groups(name: str) -> None:
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            deadline = time.monotonic() + 5
            while True:
                try:
                    os.rmdir(folder)
                except OSError:
                    if time.monotonic() < deadline:
                        time.sleep(0.05)
                        continue
                break
