"""What `bazaar run` was asked for, as a container, its network and its streams."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from bazaar.errors import UsageError
from bazaar.model.container import ContainerSpec, Image, Limits, Mount, PublishedPort
from bazaar.model.record import record, replace
from bazaar.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from bazaar.cli.run_network import RunNetwork
    from bazaar.run.forwarder import Forwarder

_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
LEAST_PIDS = 64  # threads of the host; gVisor takes about 40 for itself
LEAST_MEMORY = 6 << 20  # bytes; docker's own least
MOST_MEMORY = 1 << 62
LEAST_CORES, MOST_CORES = 0.01, 4096
_VOLUME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


@record
class Request:
    """The words of the command line, not yet judged."""

    image: str
    words: tuple[str, ...] = ()
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    remove: bool = False
    keep: bool = False
    name: str | None = None
    publish: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    workdir: str | None = None
    user: str | None = None
    hostname: str | None = None
    entrypoint: str | None = None
    engine: str = "gvisor"
    memory: str | None = None
    cpus: float | None = None
    pids_limit: int | None = None
    network: str = "bridge"
    read_only: bool = False
    pull: str = "missing"


def fast(words: list[str]) -> int | None:
    """Run a well-formed command line without click; None for one click should judge."""
    from bazaar.cli.run_options import quick
    from bazaar.errors import BazaarError

    given = quick(words)
    if given is None:
        return None
    try:
        code = execute(Request(**given))
        sys.stdout.flush()
    except (BazaarError, OSError) as error:
        from bazaar.cli.main import failed

        return failed(error)
    except KeyboardInterrupt:
        return 130
    return code


def execute(request: Request) -> int:
    """Do what was asked; the exit code. Raises BazaarError."""
    from bazaar.errors import BazaarError, EngineError

    _check(request)
    name = request.name or _made_up()
    spec = _spec(request, name)
    forwarder = None
    try:
        if spec.ports:
            spec, forwarder = _publish(spec)
        return _run(replace(spec, image=_image(request)), request, forwarder)
    except (EngineError, UsageError):
        raise
    except BazaarError as error:
        # As docker: whatever keeps the container from being started is 125.
        problem = EngineError(error.message, hint=error.hint)
        raise problem from error
    finally:
        if forwarder is not None:
            forwarder.finish()


def _check(request: Request) -> None:
    """Refuse what cannot go together."""
    if request.engine == "gvisor" and (request.pids_limit or LEAST_PIDS) < LEAST_PIDS:
        raise UsageError(
            f"--pids-limit {request.pids_limit} is too few: gVisor's own kernel needs some",
            hint=f"at least {LEAST_PIDS}, or --engine shared",
        )
    if request.cpus is not None and not LEAST_CORES <= request.cpus <= MOST_CORES:
        raise UsageError(
            f"--cpus {request.cpus} is no number of cores", hint=f"{LEAST_CORES} to {MOST_CORES}"
        )
    if request.workdir is not None and not request.workdir.startswith("/"):
        raise UsageError(f"--workdir '{request.workdir}' is no absolute path")
    if request.tty and request.detach:
        raise UsageError("a detached container has no terminal", hint="leave -t out, or -d")
    if request.tty and request.interactive and not os.isatty(0):
        raise UsageError("the input is no terminal", hint="leave -t out")
    if request.remove and request.keep:
        raise UsageError("--rm and --keep exclude one another")
    if request.publish and request.network != "bridge":
        raise UsageError(
            f"-p leads to the default network, and this is --network {request.network}",
            hint="leave one of them out",
        )


def _spec(request: Request, name: str) -> ContainerSpec:
    """The container, but for its image, which may take long."""
    return ContainerSpec(
        id=f"run.{name}",
        name=name,
        image=Image(request.image, "", ()),
        command=request.words[1:] if request.words[:1] == ("--",) else request.words,
        entrypoint=None
        if request.entrypoint is None
        else tuple(filter(None, (request.entrypoint,))),
        environment=_variables(request),
        mounts=_mounts(request),
        hostname=request.hostname or "",
        working_directory=request.workdir,
        user=request.user,
        engine=request.engine,
        limits=Limits(memory=size(request.memory), cpus=request.cpus, pids=request.pids_limit),
        read_only=request.read_only,
        terminal=request.tty,
        ports=_ports(request),
        poststop=_poststop(request, name),
    )


def _ports(request: Request) -> tuple[PublishedPort, ...]:
    if not request.publish:
        return ()
    from bazaar.cli import publishing

    return publishing.parse(request.publish)


def _poststop(request: Request, name: str) -> tuple[str, ...]:
    if not (request.remove and request.detach):
        return ()
    from bazaar.cli import auto_remove

    return auto_remove.command(f"run.{name}")


def _publish(spec: ContainerSpec) -> tuple[ContainerSpec, Forwarder]:
    """Take the ports before anything else is done."""
    from bazaar.cli import publishing
    from bazaar.run import containers
    from bazaar.run.forwarder import Forwarder

    containers.check_free(spec.id, spec.name)
    ports, listeners = publishing.take(spec.ports, spec.name)
    return replace(spec, ports=ports), Forwarder(spec.id, listeners)


def _image(request: Request) -> Image:
    from bazaar.run import engines, images

    found = None
    if request.pull == "missing" and not request.image.startswith("dir:"):
        from bazaar.run.images import store

        found = store.find(request.image)
    if found is not None:
        return found
    from bazaar.cli.output import Progress

    progress = Progress()
    here = request.image.startswith(("dir:", "oci:"))
    try:
        # The first is what costs less to find missing: an engine may have to be built.
        image = images.ensure(request.image, progress.step, pull=request.pull) if here else None
        engines.ensure(request.engine, progress.step)
        return image or images.ensure(request.image, progress.step, pull=request.pull)
    finally:
        progress.clear()


def _run(spec: ContainerSpec, request: Request, forwarder: Forwarder | None) -> int:
    from bazaar.run import containers

    containers.check_free(spec.id, spec.name)
    if request.network != "bridge":
        _sweep()
        named = None if request.network == "none" else request.network
        return _start(replace(spec, namespace=named), request, None)
    from bazaar.cli.run_network import RunNetwork

    network = RunNetwork(spec.id, _sweep, forwarder)
    try:
        code = _start(replace(spec, namespace=network.namespace), request, network)
    except BaseException:
        network.remove()
        raise
    if not request.detach:
        network.remove()
    elif forwarder is not None:
        forwarder.release()
    return code


def _start(spec: ContainerSpec, request: Request, network: RunNetwork | None) -> int:
    from bazaar.run import containers

    if request.detach:
        if network is not None:
            network.begin()
            network.complete()
        containers.start(spec)
        print(spec.name)
        return 0
    from bazaar.run import interactive

    return interactive.foreground(
        spec, stdin=request.interactive, remove=not request.keep, network=network
    )


def _sweep() -> None:
    """Take away what killed runners left, networks included."""
    from bazaar.run import containers

    def disconnect(container: str) -> None:
        from bazaar.site import run_network

        run_network.disconnect_run(container)

    containers.sweep(disconnect)


def _made_up() -> str:
    return os.urandom(6).hex()


def size(text: str | None) -> int | None:
    """Bytes, as docker writes them: 512m, 2g, 1048576. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([bkmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise UsageError(f"'{text}' is no amount of memory", hint="as in 512m or 2g")
    value = float(match[1]) * (1 << _UNITS[match[2]])
    if value < LEAST_MEMORY:
        raise UsageError(f"{text} is too little memory", hint=f"at least {LEAST_MEMORY >> 20}m")
    if value > MOST_MEMORY:
        raise UsageError(f"{text} is more memory than there can be", hint="as in 512m or 2g")
    return int(value)


def _variables(request: Request) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for path in request.env_files:
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--env-file {path}: {getattr(error, 'strerror', None) or error}"
            ) from error
        lines = (line.strip() for line in text.splitlines())
        _take(found, (line for line in lines if line and not line.startswith("#")))
    _take(found, request.variables)
    return tuple(found.items())


def _take(found: dict[str, str], words: Iterable[str]) -> None:
    for word in words:
        name, equals, value = word.partition("=")
        if not name or "\0" in word:
            raise UsageError(f"'{word}' is no variable", hint="NAME=VALUE, or NAME for ours")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]


def _mounts(request: Request) -> tuple[Mount, ...]:
    found = [_volume(text) for text in request.volumes]
    found += [_worded(text) for text in request.mounts]
    found += [
        Mount(Path("tmpfs"), _target(text.partition(":")[0], text), kind="tmpfs")
        for text in request.tmpfs
    ]
    return tuple(found)


def _volume(text: str) -> Mount:
    parts = text.split(":")
    if len(parts) == 2:
        parts.append("rw")
    if len(parts) != 3 or not parts[0] or set(parts[2].split(",")) - {"ro", "rw", "z", "Z"}:
        raise UsageError(
            f"'{text}' is no volume",
            hint="-v /on/the/host:/inside, with :ro to only read, or -v NAME:/inside",
        )
    return Mount(
        _source(parts[0], text, make=True), _target(parts[1], text), "ro" in parts[2].split(",")
    )


def _worded(text: str) -> Mount:
    words = {key: value for key, _, value in (word.partition("=") for word in text.split(","))}
    aliases = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
    words = {aliases.get(key, key): value for key, value in words.items()}
    if unknown := set(words) - {"type", "source", "target", "readonly"}:
        raise UsageError(
            f"--mount {text}: unknown word '{sorted(unknown)[0]}'",
            hint="type, source, target, readonly",
        )
    read_only = words.get("readonly", "false") in ("", "true", "1")
    target = _target(words.get("target", ""), text)
    kind = words.get("type", "volume")
    if kind == "tmpfs":
        return Mount(Path("tmpfs"), target, read_only, "tmpfs")
    if kind not in ("bind", "volume"):
        raise UsageError(f"--mount {text}: unknown type '{kind}'", hint="bind, volume or tmpfs")
    if not words.get("source"):
        raise UsageError(f"--mount {text}: the source is missing")
    return Mount(_source(words["source"], text, make=kind == "volume"), target, read_only)


def _source(text: str, whole: str, *, make: bool) -> Path:
    """A path of the host, or a named volume's directory, made when it is not there.

    As docker, one that is neither absolute nor begins with a dot is a name.
    """
    if text.startswith(("/", ".")):
        path = Path(text).absolute()
        try:
            if path.exists():
                return path
            if make:
                path.mkdir(parents=True)
                return path
        except OSError as error:
            raise UsageError(
                f"'{whole}': {path} cannot be made: {error.strerror}",
                hint="name a file or directory of this machine",
            ) from error
        raise UsageError(f"'{whole}': {path} does not exist", hint=f"mkdir -p {path}")
    if not re.fullmatch(_VOLUME, text):
        raise UsageError(
            f"'{whole}': '{text}' cannot name a volume",
            hint=f"a path is meant? ./{text}" if "/" in text else None,
        )
    from bazaar.host import paths

    volumes = paths.close(paths.state() / "volumes")
    volumes.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = volumes / text
    path.mkdir(exist_ok=True)  # open: programs that drop their privileges must reach their data
    return path


def _target(text: str, whole: str) -> str:
    if not text.startswith("/") or ".." in text.split("/"):
        raise UsageError(f"'{whole}': '{text}' is no absolute path inside", hint="as in /data")
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))
