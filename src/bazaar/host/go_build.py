"""Programs built from pinned Go modules by an ordinary Go client.

A folder below go/ holds a module that pins what it builds: go.mod and go.sum name versions and
hashes of everything, which the client checks. What a build is made of names it in the cache.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bazaar.errors import CommandError, MissingError
from bazaar.host import commands
from bazaar.model.record import record

Progress = Callable[[str], None]
MODULES = Path(__file__).resolve().parents[3] / "go"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's name: Go's
_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/usr/lib/go-1.23/bin/go")
_ANSWER = 300.0  # seconds for `go version`, which may have to download a toolchain


@record
class Recipe:
    """What one call of the Go client builds."""

    name: str  # for messages
    module: Path  # the folder of go.mod, go.sum and sources of its own
    packages: tuple[str, ...]  # "." is the module's own program
    ldflags: str = "-s -w"
    tags: str = ""
    test: bool = False  # the packages' test programs rather than their own
    toolchain: str = ""  # as "go1.23.6": only Go of that line will do; else go.mod's or newer


@record
class Client:
    """A Go client that fits a recipe."""

    program: str
    version: str  # as "go1.26.8"
    environment: dict[str, str]


def architecture() -> str:
    """This machine's, by Go's name. Raises MissingError for one nothing is built for."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise MissingError(
            f"nothing is built for this machine's architecture, {machine}",
            hint=f"there is {', '.join(ARCHITECTURES)}",
        )
    return ARCHITECTURES[machine]


def key(recipe: Recipe) -> str:
    """What names a build: the module's files and how they are built."""
    digest = hashlib.sha256()
    words = [*recipe.packages, recipe.ldflags, recipe.tags, recipe.toolchain, platform.machine()]
    if recipe.test:
        words.append("test")
    for word in words:
        digest.update(word.encode() + b"\0")
    for path in sorted(recipe.module.glob("*")):
        if path.suffix in (".mod", ".sum", ".go"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build(recipe: Recipe, folder: Path, progress: Progress) -> Client:
    """Build the recipe's programs into ``folder``, each by the name Go gives it; who built them.

    Raises MissingError when there is no Go client that can, or what the client said.
    """
    if not (recipe.module / "go.mod").is_file():
        raise MissingError(
            f"{recipe.name} cannot be built: {recipe.module / 'go.mod'} is missing",
            hint="run Bazaar from its repository, which holds the Go modules",
        )
    found = client(recipe, progress)
    progress(f"{recipe.name}: compiling with {found.version}")
    verb = ("test", "-c", "-vet=off") if recipe.test else ("build",)
    words = [found.program, *verb, "-mod=readonly", "-trimpath", f"-ldflags={recipe.ldflags}"]
    if recipe.tags:
        words.append(f"-tags={recipe.tags}")
    # Not in /tmp, which is small where it lies in memory: Kubernetes takes gigabytes.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".go-") as scratch:
        finished = commands.run(
            [*words, "-o", f"{folder}/", *recipe.packages],
            timeout=None,
            check=False,
            environment={**found.environment, "GOTMPDIR": scratch},
            folder=recipe.module,
        )
    if finished.code != 0:
        said = " ".join((finished.errors.strip() or "no word").splitlines()[-3:])
        raise MissingError(
            f"{recipe.name} cannot be built: {said}",
            hint="Go modules have to be reachable: `go env GOPROXY` says where they come from",
        )
    return found


def client(recipe: Recipe, progress: Progress) -> Client:
    """A Go client that can build it: this machine's, one it downloads, or Debian's.

    Raises MissingError with what was found instead.
    """
    seen: list[str] = []
    try:
        for program, root in _candidates(progress):
            for chosen in ("local", recipe.toolchain or "auto"):
                variables = _environment(chosen, root)
                version = _version(program, variables, recipe.module)
                if version and _fits(version, recipe):
                    return Client(program, version, variables)
                seen.append(f"{program} is {version or f'no help with GOTOOLCHAIN={chosen}'}")
    except MissingError as error:
        seen.append(error.message)
    raise MissingError(
        f"{recipe.name} cannot be built: it needs {_wanted(recipe)}: "
        + "; ".join(dict.fromkeys(seen)),
        hint="install such a Go, or let `go` download toolchains (it is asked with GOTOOLCHAIN)",
    )


def _candidates(progress: Progress) -> Iterator[tuple[str, Path | None]]:
    """Go clients, and where its root is for one that was moved from its place."""
    here = [shutil.which("go"), *_PLACES]
    for program in dict.fromkeys(path for path in here if path and Path(path).exists()):
        yield program, None
    from bazaar.host import debian_go

    program = debian_go.get(progress)
    yield str(program), program.parents[1]


def _environment(toolchain: str, root: Path | None) -> dict[str, str]:
    """The user's own, less what would build something else than the recipe says."""
    fixed = {
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": architecture(),
        "GOAMD64": "v1",
        "GOARM64": "v8.0",
        "GOWORK": "off",
        "GOEXPERIMENT": "",
        "GOFLAGS": "-buildvcs=false",
        "GOTOOLCHAIN": toolchain,
    }
    if root:
        fixed["GOROOT"] = str(root)
    return {"HOME": "/root", **os.environ, **fixed}


def _version(program: str, variables: dict[str, str], module: Path) -> str:
    """What `go version` answers, as "go1.26.8"; "" when it cannot be had."""
    try:
        finished = commands.run(
            [program, "version"], timeout=_ANSWER, environment=variables, folder=module
        )
    except CommandError:  # one that hangs or cannot be run, too: there may be others
        return ""
    match = re.search(r"\bgo\d+(\.\d+)+", finished.output)
    return match[0] if match else ""


def _fits(version: str, recipe: Recipe) -> bool:
    if recipe.toolchain:
        return _numbers(version)[:2] == _numbers(recipe.toolchain)[:2]
    return _numbers(version) >= _numbers(_go_line(recipe.module))


def _wanted(recipe: Recipe) -> str:
    if recipe.toolchain:
        return f"Go {recipe.toolchain.removeprefix('go').rpartition('.')[0]}"
    return f"Go {_go_line(recipe.module)} or newer"


def _go_line(module: Path) -> str:
    """The oldest Go that will do, as go.mod has it."""
    match = re.search(r"^go (\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    return match[1] if match else "1.21"


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    return (*numbers, 0, 0)[:3]
