"""The OCI bundle of a container: config.json as the runtime specification 1.0.2 defines it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bazaar.errors import EngineError
from bazaar.host import resolvers
from bazaar.model.container import ContainerSpec, Mount
from bazaar.run import rootfs
from bazaar.typed import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What docker gives a container by default (moby, oci/caps/defaults.go).
CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in """
        CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
        NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
    """.split()  # noqa: SIM905
)
MASKED = """
    /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats
    /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats
    /sys/devices/virtual/powercap /sys/firmware
""".split()  # noqa: SIM905
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

# Mount options as the shared kernel's engine wants them; gVisor makes /dev itself.
_PSEUDO: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/dev/mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys/fs/cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)
_SHM = ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k"))  # noqa: S108


def arguments(spec: ContainerSpec) -> list[str]:
    """What is executed: entrypoint and command, each the image's own unless replaced."""
    config = spec.image.config
    entrypoint = config.entrypoint if spec.entrypoint is None else spec.entrypoint
    # As docker: a replaced entrypoint drops the image's command.
    command = spec.command or (config.command if spec.entrypoint is None else ())
    if not (entrypoint or command):
        raise EngineError(
            f"{spec.image.reference} names no command to run",
            hint="give one: bazaar run IMAGE -- CMD",
        )
    return [*entrypoint, *command]


def environment(spec: ContainerSpec, home: str) -> dict[str, str]:
    """The process's environment: defaults, the image's, the container's own, later ones winning."""
    variables = {"PATH": PATH, "HOSTNAME": hostname(spec), "HOME": home}
    if spec.terminal:
        variables["TERM"] = "xterm"
    variables |= dict(spec.image.config.environment)
    variables |= dict(spec.environment)
    return variables


def hostname(spec: ContainerSpec) -> str:
    """The container's host name: as told, else made of its id."""
    return (spec.hostname or spec.id.removeprefix("run."))[:63]


def directory(spec: ContainerSpec) -> str:
    """The working directory inside."""
    return spec.working_directory or spec.image.config.working_directory or "/"


def write(
    spec: ContainerSpec,
    folder: Path,
    root: Path,
    *,
    cgroup: str | None = None,
    hooks: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``folder``/config.json and the files it names; returns the configuration.

    ``root`` is the mounted root. Secrets of the environment stand in the file, so it is 0600.
    Without a ``cgroup`` the shared engine is to do with the control groups it can make.
    """
    who = rootfs.user(root, spec.user if spec.user is not None else spec.image.config.user)
    variables = environment(spec, who.home)
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process(spec, who, variables),
        "root": {"path": str(root), "readonly": spec.read_only},
        "hostname": hostname(spec),
        "mounts": [*_pseudo(spec), *_files(spec, folder, root), *map(_mount, spec.mounts)],
        "linux": _linux(spec, cgroup),
    }
    if hooks:
        config["hooks"] = hooks
    if spec.engine == "shared" and cgroup is None:
        # Perhaps no control group keeps it from devices then, so it must not make any.
        for held in config["process"]["capabilities"].values():
            held[:] = [name for name in held if name != "CAP_MKNOD"]
    private(folder / "config.json", json.dumps(config))
    return config


def process(spec: ContainerSpec, who: rootfs.User, variables: dict[str, str]) -> dict[str, Any]:
    """The `process` object: who runs what, and with which rights."""
    # A user that is not root gets the set as its bound alone, as with docker.
    held = CAPABILITIES if who.uid == 0 else ()
    return {
        "terminal": spec.terminal,
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": list(who.groups)},
        "args": arguments(spec),
        "env": [f"{name}={value}" for name, value in variables.items()],
        "cwd": directory(spec),
        "capabilities": {
            "bounding": list(CAPABILITIES),
            "effective": list(held),
            "permitted": list(held),
        },
        "noNewPrivileges": True,
    }


def private(path: Path, text: str) -> None:
    """Write a file only its owner may read; it was not there before or is replaced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _pseudo(spec: ContainerSpec) -> list[dict[str, Any]]:
    proc = {"destination": "/proc", "type": "proc", "source": "proc"}
    shared = spec.engine == "shared"
    rows = [*_PSEUDO[:2], _SHM, *_PSEUDO[2:]] if shared else [_SHM]
    taken = {mount.target.rstrip("/") for mount in spec.mounts}
    return [proc] + [
        {"destination": target, "type": kind, "source": kind, "options": list(options)}
        for target, kind, options in rows
        if target not in taken
    ]


def _files(spec: ContainerSpec, folder: Path, root: Path) -> list[dict[str, Any]]:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf, bound over the image's own."""
    name = hostname(spec)
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n"
    texts = {"/etc/hosts": hosts, "/etc/hostname": f"{name}\n"}
    if spec.namespace:
        texts["/etc/resolv.conf"] = _resolver(spec.namespace)
    taken = {mount.target for mount in spec.mounts}
    result: list[dict[str, Any]] = []
    for target, text in texts.items():
        if target in taken:
            continue
        source = folder / target.removeprefix("/etc/")
        source.write_text(text)
        source.chmod(0o644)
        place = rootfs.resolve(root, target)
        # A link inside (systemd's stub) would be followed by the engine: take its place instead.
        link = root / target.lstrip("/")
        if place is None and link.is_symlink() and rootfs.resolve(root, "/etc") == root / "etc":
            link.unlink()
        result.append(
            {"destination": target, "type": "bind", "source": str(source), "options": ["bind"]}
        )
    return result


def _resolver(namespace: str) -> str:
    """The namespace's own resolv.conf (ip-netns(8) keeps it in /etc/netns), else the host's."""
    for path in (
        Path("/etc/netns") / Path(namespace).name / "resolv.conf",
        resolvers.file(),
    ):
        try:
            return path.read_text(errors="replace")
        except OSError:
            continue
    return ""


def _mount(mount: Mount) -> dict[str, Any]:
    if not mount.target.startswith("/"):
        raise EngineError(f"mount target {mount.target} is not absolute")
    if mount.kind == "tmpfs":
        options = ["nosuid", "nodev", "mode=1777", *(["ro"] if mount.read_only else [])]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    if not mount.source.exists():
        raise EngineError(
            f"mount source {mount.source} does not exist",
            hint="make it first: mkdir -p " + str(mount.source),
        )
    options = ["rbind", "rprivate", "ro" if mount.read_only else "rw"]
    source = str(mount.source.absolute())
    return {"destination": mount.target, "type": "bind", "source": source, "options": options}


def namespace_path(namespace: str) -> Path:
    """The file of a network namespace, named as `ip netns` names it or by its path."""
    return Path(namespace) if namespace.startswith("/") else Path("/run/netns") / namespace


def check_namespace(spec: ContainerSpec) -> None:
    """Raises EngineError when the network the container is to be in is not there."""
    if spec.namespace and not namespace_path(spec.namespace).exists():
        raise EngineError(
            f"there is no network namespace {spec.namespace}",
            hint="`ip netns` lists them; --network none needs none",
        )


def _linux(spec: ContainerSpec, cgroup: str | None) -> dict[str, Any]:
    network: dict[str, Any] = {"type": "network"}
    if spec.namespace:
        network["path"] = str(namespace_path(spec.namespace))
    kinds = ("pid", "mount", "ipc", "uts")
    result: dict[str, Any] = {
        "namespaces": [*({"type": kind} for kind in kinds), network],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    if spec.engine == "shared":
        from bazaar.run import seccomp

        result["seccomp"] = seccomp.default()
        result["resources"] = _resources(spec)
        if cgroup is not None:
            result["cgroupsPath"] = cgroup
    return result


def _resources(spec: ContainerSpec) -> dict[str, Any]:
    """Limits and devices for the shared engine, which sets its control groups itself."""
    limits = spec.limits
    result: dict[str, Any] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            # What docker allows: mknod of anything, and use of the harmless devices of /dev.
            {"allow": True, "type": "c", "access": "m"},
            {"allow": True, "type": "b", "access": "m"},
            *(
                {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
                for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))
            ),
            {"allow": True, "type": "c", "major": 136, "access": "rwm"},
        ]
    }
    if limits.memory is not None:
        result["memory"] = {"limit": limits.memory}
    if limits.cpus is not None:
        result["cpu"] = {"period": 100_000, "quota": max(1000, int(limits.cpus * 100_000))}
    if limits.pids is not None:
        result["pids"] = {"limit": limits.pids}
    return result
