"""Whether this machine can be what a bazaar asks of it, before anything is changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bazaar.errors import MissingError, NetworkError, StateError
from bazaar.host import paths
from bazaar.host.files import read_json
from bazaar.spec.resolved import ResolvedBazaar
from bazaar.up import doctor, layout

LEAST_FREE = 32 << 20  # bytes
_PEM = "name a PEM file with the chain and its key, not encrypted"


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


def check_certificates(wanted: ResolvedBazaar) -> None:
    """Raises MissingError or StateError where a certificate cannot be served."""
    for service in wanted.services:
        if service.certificate:
            _check_certificate(f"services.{service.name}.certificate", service.certificate)


def _check_certificate(where: str, file: str) -> None:
    import ssl

    if not Path(file).is_file():
        raise MissingError(f"{where}: there is no file {file}", hint=_PEM)

    def refuse() -> str:  # else OpenSSL asks whoever sits at the terminal
        raise ValueError("its key is encrypted, and nobody is there to decrypt it")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, password=refuse)
    except ssl.SSLError as error:
        other = error.reason == "KEY_VALUES_MISMATCH"
        why = "its key is another's" if other else "it is no certificate with its key, as PEM"
        raise StateError(f"{where}: {file} cannot be used: {why}", hint=_PEM) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise StateError(f"{where}: {file} cannot be used: {why}", hint=_PEM) from error


def check_subnets(wanted: ResolvedBazaar, held: str) -> None:
    """Raises NetworkError where what is up, in the subnet ``held``, has others than described."""
    name = wanted.name
    if held and wanted.subnet and wanted.subnet != held:
        raise NetworkError(
            f"subnet: the bazaar {name} is up with {held}, not {wanted.subnet}",
            hint=layout.HINT,
        )
    try:
        stored = read_json(paths.bazaar(name) / "layout.json")
        known = layout.from_json(stored) if stored else None
    except (StateError, KeyError, TypeError):
        return  # cut short: it is made anew
    if known is not None and wanted.subnet in (None, known.subnet):
        sites = dict.fromkeys(known.sites) | {site.name: site.subnet for site in wanted.sites}
        layout.extend(known, sites, ())


def check_places(wanted: ResolvedBazaar) -> None:
    """Raises NetworkError where a subnet or port is taken.

    What this bazaar itself holds already is its own.
    """
    from bazaar.site import balance, network, ports

    if wanted.subnet:
        network.choose_subnet(wanted.subnet, bazaar=wanted.name)
    own = balance.processes(wanted.name)
    for service in wanted.services:
        for publish in service.publish:
            ports.check_free(publish.address, publish.port, service.name, own)


def prepare(wanted: ResolvedBazaar, progress: Callable[[str], None]) -> list[str]:
    """Get what the bazaar needs of this machine; what is missing still, in sentences.

    Raises MissingError when services cannot run at all.
    """
    left = doctor.ensure(doctor.for_bazaar(wanted), progress)
    return [
        f"{need.name} ({need.purpose}): {need.found or 'not there'}; {need.remedy}" for need in left
    ]
