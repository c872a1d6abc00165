"""``docker://NAME`` and plain names: images of a registry, fetched by skopeo.

skopeo knows registries, credentials (~/.docker/config.json) and mirrors; what it brings is
unpacked and checked here.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from bazaar.errors import ImageError
from bazaar.model.container import Image
from bazaar.run.images import oci, store

Progress = Callable[[str], None]
_NAME = re.compile(
    r"(?:(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?P<port>:\d{1,5})?/)?"
    r"(?P<path>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)


def loopback(name: str) -> bool:
    """Whether the registry in a name is on this machine's loopback, where plain HTTP is safe."""
    host, separator, _ = name.partition("/")
    host = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if not separator:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def pull(reference: str, progress: Progress) -> Image:
    """Fetch and unpack an image. Raises ImageError that says which of the two failed, and why."""
    name = reference.removeprefix("docker://")
    if not _NAME.fullmatch(name):
        raise ImageError(
            f"'{reference}' is no image",
            hint="as in alpine, localhost:5000/x:tag, deb://bookworm, oci:DIR, dir:PATH",
        )
    if shutil.which("skopeo") is None:
        raise ImageError(f"{reference}: skopeo is not installed", hint="bazaar doctor --fix")
    progress(f"{reference}: asking the registry")
    with store.building() as temporary:
        layout = temporary / "layout"
        command = ["skopeo"]
        if not any(Path(path).exists() for path in ("/etc/containers/policy.json",)):
            command.append("--insecure-policy")
        command += ["--override-os", "linux", "copy", "--quiet"]
        if loopback(name):
            command.append("--src-tls-verify=false")
        command += [f"docker://{name}", f"oci:{layout}:image"]
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise _failure(reference, result.stderr)
        return oci.load(layout, "image", reference, progress)


def _failure(reference: str, said: str) -> ImageError:
    text = said.lower()
    last = (said.strip().splitlines() or ["no word"])[-1]
    message = re.search(r'msg="((?:[^"\\]|\\.)*)"', last)
    why = (message[1].replace('\\"', '"') if message else last)[-300:]
    if "no space left" in text:
        return store.no_space(reference)
    if any(
        sign in text
        for sign in ("manifest unknown", "name unknown", "repository name not known", "not found")
    ):
        return ImageError(
            f"{reference}: the registry has no such image", hint="is its name, and its tag, right?"
        )
    if any(sign in text for sign in ("unauthorized", "authentication required", "denied")):
        return ImageError(
            f"{reference}: the registry has no such image, or does not show it to us",
            hint="skopeo login REGISTRY",
        )
    if any(
        sign in text
        for sign in (
            "connection refused",
            "no such host",
            "i/o timeout",
            "network is unreachable",
            "no route",
            "tls",
            "eof",
            "dial ",
            "forbidden",
        )
    ):
        return ImageError(
            f"{reference}: the registry cannot be reached: {why}",
            hint="deb://bookworm?packages=… needs no registry",
        )
    return ImageError(f"{reference}: it could not be fetched: {why}")
