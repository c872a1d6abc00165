"""Whether this machine can be what a bazaar asks of it, before anything is changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bazaar.errors import MissingError, StateError
from bazaar.host import paths
from bazaar.spec.resolved import ResolvedBazaar
from bazaar.up import doctor

LEAST_FREE = 32 << 20  # bytes


def check_space() -> None:
    """Raises StateError where the state folder has no room for what is about to be written."""
    folder = paths.state()
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE:
        raise StateError(
            f"{folder}: no space left for a bazaar's state: {free >> 10} KiB are free",
            hint=f"free {LEAST_FREE >> 20} MiB there, or name another folder in BAZAAR_STATE",
        )


def check_places(wanted: ResolvedBazaar) -> None:
    """Raises NetworkError or MissingError where a subnet or port is taken, or a file is not there.

    What this bazaar itself holds already is its own.
    """
    from bazaar.site import balance, network, ports

    if wanted.subnet:
        network.choose_subnet(wanted.subnet, bazaar=wanted.name)
    own = balance.processes(wanted.name)
    for service in wanted.services:
        for publish in service.publish:
            ports.check_free(publish.address, publish.port, service.name, own)
        if service.certificate and not Path(service.certificate).is_file():
            raise MissingError(
                f"services.{service.name}.certificate: there is no file {service.certificate}",
                hint="name a PEM file with key and chain",
            )


def prepare(wanted: ResolvedBazaar, progress: Callable[[str], None]) -> list[str]:
    """Get what the bazaar needs of this machine; what is missing still, in sentences.

    Raises MissingError when services cannot run at all.
    """
    left = doctor.ensure(doctor.for_bazaar(wanted), progress)
    return [
        f"{need.name} ({need.purpose}): {need.found or 'not there'}; {need.remedy}" for need in left
    ]
