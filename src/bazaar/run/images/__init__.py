"""Images: a reference becomes layers on this machine, shared by content.

deb://SUITE?packages=a,b   made of Debian's (or Ubuntu's) packages        deb
oci:DIR[:TAG]              an OCI image layout                            oci
dir:PATH                   a root file system as it lies there, only read  directory
docker://NAME, NAME        from a registry, as docker names them          registry
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from bazaar.errors import ImageError
from bazaar.model.container import Image
from bazaar.model.record import replace
from bazaar.run.images import store

Progress = Callable[[str], None]


def ensure(reference: str, progress: Progress, *, pull: str = "missing") -> Image:
    """The image on this machine, made or pulled when it is not here.

    ``pull``: missing, always (look for newer content) or never. Raises ImageError; what was
    begun is taken back.
    """
    begin = time.monotonic()
    if reference.startswith("dir:"):
        from bazaar.run.images import directory

        return directory.open_image(reference)
    if pull != "always" and (found := store.find(reference)) is not None:
        return found
    if pull == "never":
        raise ImageError(f"{reference} is not on this machine", hint="run without --pull never")
    try:
        image = _make(reference, progress, fresh=pull == "always")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise store.no_space(reference) from error
        raise ImageError(f"{reference}: {error.strerror}: {error.filename}") from error
    image = replace(image, seconds=time.monotonic() - begin)
    store.remember(image)
    return image


def _make(reference: str, progress: Progress, *, fresh: bool) -> Image:
    if reference.startswith("deb://"):
        from bazaar.run.images import deb

        return deb.make(reference, progress, fresh=fresh)
    if reference.startswith("oci:"):
        from bazaar.run.images import oci

        return oci.open_image(reference, progress)
    from bazaar.run.images import registry

    return registry.pull(reference, progress)


def listing() -> list[Image]:
    """Every image on this machine, by reference."""
    return store.listing()


def remove(reference: str) -> bool:
    """Forget an image and the layers no other image has; False when it is not here."""
    return store.forget(reference)
