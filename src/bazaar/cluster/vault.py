"""The keys of a cluster at rest: sealed by a passphrase, or by a key file outside the state.

AES-256-GCM (NIST SP 800-38D); a passphrase becomes a key by scrypt (RFC 7914). What is in the
state folder, or a copy of it, opens nothing by itself.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from bazaar.errors import StateError
from bazaar.host import files, paths

PASSPHRASE = "BAZAAR_CLUSTER_PASSPHRASE"  # noqa: S105 - the variable's name
KEY_FILE = "BAZAAR_CLUSTER_KEY_FILE"
_FORMAT = "bazaar vault 1"
_SCRYPT = {"length": 32, "n": 1 << 15, "r": 8, "p": 1}  # 32 MiB, a tenth of a second


def key_file() -> Path:
    """The key file: ``BAZAAR_CLUSTER_KEY_FILE``, else one among the user's settings."""
    chosen = os.environ.get(KEY_FILE)
    return Path(chosen).absolute() if chosen else paths.settings() / "cluster.key"


def seal(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` so that only the key's holder can read it; makes a key file if needed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = os.urandom(16), os.urandom(12)
    by = "passphrase" if os.environ.get(PASSPHRASE) else "key file"
    key = _key(by, salt, make=True)
    sealed = AESGCM(key).encrypt(nonce, json.dumps(content).encode(), _FORMAT.encode())
    parts = {"salt": salt, "nonce": nonce, "sealed": sealed}
    encoded = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    files.write_json(path, {"format": _FORMAT, "by": by, **encoded})


def unseal(path: Path) -> dict[str, Any] | None:
    """What was sealed there; None where there is nothing. Raises StateError without the key."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    stored = files.read_json(path)
    if stored is None:
        return None
    try:
        salt, nonce, sealed = (
            base64.b64decode(stored[name]) for name in ("salt", "nonce", "sealed")
        )
        by = stored["by"]
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} is no vault of Bazaar's: {error}") from error
    try:
        text = AESGCM(_key(by, salt, make=False)).decrypt(nonce, sealed, _FORMAT.encode())
    except InvalidTag:
        raise StateError(
            f"{path}: the {by} is not the one it was sealed by",
            hint=f"{PASSPHRASE} or {KEY_FILE} names the right one",
        ) from None
    return json.loads(text)


def _key(by: str, salt: bytes, *, make: bool) -> bytes:
    if by == "passphrase":
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        phrase = os.environ.get(PASSPHRASE)
        if not phrase:
            raise StateError(
                "this cluster's keys are sealed by a passphrase", hint=f"give it in {PASSPHRASE}"
            )
        return Scrypt(salt=salt, **_SCRYPT).derive(phrase.encode())
    path = key_file()
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        if not make:
            raise StateError(
                f"the key file {path} is not there: without it the cluster's keys stay sealed",
                hint=f"bring it back, or name where it is by {KEY_FILE}",
            ) from None
        text = os.urandom(32).hex()
        files.write_atomic(path, f"{text}\n")
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise StateError(f"{path}: a key file holds 64 hexadecimal digits")
    return key
