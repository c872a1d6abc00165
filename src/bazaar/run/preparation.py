"""What a container needs before its processes: a free name, a root, a bundle, control groups."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from bazaar.errors import EngineError
from bazaar.host import cgroups, mounts, processes
from bazaar.model.container import ContainerSpec, Limits, Mount
from bazaar.model.record import replace
from bazaar.run import bundle, containers, engines, gate, launch, programs, rootfs


def prepare(spec: ContainerSpec, owner: int | None = None, *, gated: bool = False) -> launch.Launch:
    """Make everything a container needs but its processes: directory, root, bundle, cgroups.

    ``owner`` is the process that runs it in the foreground; ``gated``, its start waits for a
    `gate.Gate`. Raises EngineError; nothing is left then.
    """
    check_free(spec.id, spec.name)
    place = containers.folder(spec.id)
    engine = engines.get(spec.engine)
    command = engine.command(place, network=spec.namespace is not None)
    try:
        place.mkdir(parents=True, mode=0o700)
        record = {
            "id": spec.id,
            "name": spec.name,
            "engine": spec.engine,
            "image": spec.image.reference,
            "command": bundle.arguments(spec),
            "labels": dict(spec.labels),
            "created_at": time.time(),
            "boot": launch.boot_id(),
            "owner": _identity(owner),
            "ports": list(map(str, spec.ports)),
            "remove": bool(spec.poststop),
        }
        launch.store(place, "container.json", record)
        found = cgroups.find()
        groups = _groups(spec, found, own=engine.own_cgroups)
        asked = launch.Launch(
            id=spec.id,
            engine=spec.engine,
            command=tuple(command),
            cgroups=tuple(map(str, groups)),
            folder=str(place),
            stop_signal=_signal(spec.image.config.stop_signal),
            poststop=spec.poststop,
        )
        launch.store(
            place,
            "launch.json",
            {name: getattr(asked, name) for name in launch.Launch.__dataclass_fields__},
        )
        root = rootfs.mount(spec.image.layers, place)
        group = f"/{cgroups.PARENT}/{spec.id}" if cgroups.complete(found) else None
        hooks = gate.make(place) if gated else None
        shown = replace(spec, mounts=_guarded(spec.mounts, place))
        bundle.write(shown, place, root, cgroup=group, hooks=hooks)
        _check_executable(spec, root)
    except FileExistsError as error:
        raise EngineError(
            f"the name {spec.name} is taken", hint=f"bazaar rm -f {spec.name}"
        ) from error
    except OSError as error:
        containers.discard(spec.id)
        raise EngineError(
            f"cannot make container {spec.name}: {error.strerror}: {error.filename}"
        ) from error
    except BaseException:
        containers.discard(spec.id)
        raise
    return asked


def _guarded(wanted: Sequence[Mount], place: Path) -> tuple[Mount, ...]:
    """Mounts whose sources the kernel itself keeps from being written to where they are read-only.

    An engine is not trusted with that: gVisor empties a file that is opened to be (O_TRUNC)
    before it says that it cannot be. Mounts below the source are read-only, too.
    """
    found: list[Mount] = []
    for number, one in enumerate(wanted):
        if one.kind != "bind" or not one.read_only or not one.source.exists():
            found.append(one)
            continue
        target = place / "sources" / str(number)
        if one.source.is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(exist_ok=True)
            target.touch()
        mounts.bind(one.source.absolute(), target, read_only=True, recursive=True)
        found.append(replace(one, source=target))
    return tuple(found)


def check_free(container: str, name: str) -> None:
    """Raise EngineError when another container has that id; what is left of a dead one goes."""
    place = containers.folder(container)
    if not place.exists():
        return
    found = containers.state(container)
    if found is not None:
        raise EngineError(
            f"the name {name} is taken by a container that is {found.status}",
            hint=f"bazaar rm -f {name}",
        )
    # Without a readable record: somebody was killed while making it, or is just making it.
    if time.time() - place.stat().st_mtime > 2:
        containers.discard(container)


def _identity(pid: int | None) -> list[int]:
    found = processes.identify(pid) if pid else None
    return [found.pid, found.start] if found else []


def _signal(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")]
    except KeyError:
        return signal.SIGTERM


def _groups(spec: ContainerSpec, found: cgroups.Hierarchies, *, own: bool) -> list[Path]:
    """Make the container's control groups; the directories the engine's process must enter."""
    if reason := cgroups.problem(spec.limits, found):
        if spec.limits.memory is None and spec.limits.cpus is None and spec.limits.pids is None:
            # It runs all the same, in the groups that can be made: a v2 group is what probes
            # know it by. runc makes its own, as far as it can.
            return [] if own else cgroups.create(spec.id, hierarchies=cgroups.writable(found))
        raise EngineError(f"limits cannot be kept here: {reason}", hint="run it without limits")
    if not own:
        # Entering a v1 hierarchy waits for the kernel (17 ms): only where there is a limit.
        unlimited = spec.limits == Limits()
        few = cgroups.Hierarchies(found.v2) if unlimited and found.v2 else found
        return cgroups.create(spec.id, spec.limits, few)
    # runc makes and limits its own groups, unless another container, as it leaves, takes the one
    # above them away just then: so they are there.
    cgroups.hold(spec.id, found)
    # Beside v1 controllers it leaves v2 alone.
    if found.v2 is None or not found.v1:
        return []
    return cgroups.create(spec.id, hierarchies=cgroups.Hierarchies(found.v2))


def _check_executable(spec: ContainerSpec, root: Path) -> None:
    arguments = bundle.arguments(spec)
    variables = bundle.environment(spec, "/")
    mounted = [mount.target for mount in spec.mounts] + ["/proc", "/sys", "/dev"]
    error = programs.problem(
        root,
        arguments[0],
        variables["PATH"],
        bundle.directory(spec),
        mounted,
        spec.image.reference,
    )
    if error is not None:
        raise error
