"""A cluster's API over HTTPS, for what is small and often asked: no kubectl, no SSH.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from bazaar.errors import ClusterError
from bazaar.model.record import record

MANAGER = "bazaar"  # the field manager of what we apply
_APPLY = "application/apply-patch+yaml"  # JSON is YAML, too
_LARGEST = 64 << 20  # bytes of an answer


@record
class Access:
    """Who asks, and whom; plain data, to be kept where its owner alone reads."""

    cluster: str
    servers: Sequence[str]  # https://ADDRESS:PORT of all control planes
    authority: str  # PEM
    certificate: str  # PEM
    key: str  # PEM


class Client:
    """Asks the first control plane that answers, over one connection that is kept.

    Everything raises ClusterError: where no control plane answers, and where one refuses.
    """

    def __init__(self, access: Access, timeout: float = 10.0) -> None:
        self.cluster = access.cluster
        self._servers = list(access.servers)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: http.client.HTTPSConnection | None = None
        self._context = ssl.create_default_context(cadata=access.authority)
        _load(self._context, f"{access.certificate}\n{access.key}")

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """An object or a list; None where there is none."""
        status, answer = self._ask("GET", _with(path, query))
        if status == 404:
            return None
        return self._checked("GET", path, status, answer)

    def text(self, path: str, **query: str) -> str:
        """What is no JSON, as a container's log."""
        status, answer = self._ask("GET", _with(path, query))
        if status >= 300:
            self._checked("GET", path, status, answer)
        return answer.decode(errors="replace")

    def apply(
        self, path: str, wanted: Mapping[str, Any], *, try_only: bool = False
    ) -> dict[str, Any]:
        """Server-side apply: the object as the API has it then, or would have it."""
        query = {"fieldManager": MANAGER, "force": "true"} | ({"dryRun": "All"} if try_only else {})
        words = json.dumps(wanted).encode()
        status, answer = self._ask("PATCH", _with(path, query), words, _APPLY)
        return self._checked("PATCH", path, status, answer)

    def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Change some of an object, or of what is below it: its ``/status``."""
        words = json.dumps(patch).encode()
        status, answer = self._ask("PATCH", path, words, "application/merge-patch+json")
        return self._checked("PATCH", path, status, answer)

    def delete(self, path: str) -> bool:
        """Delete an object, and in time what it owns; whether it was there."""
        words = json.dumps({"propagationPolicy": "Background"}).encode()
        status, answer = self._ask("DELETE", path, words, "application/json")
        if status == 404:
            return False
        self._checked("DELETE", path, status, answer)
        return True

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._drop()

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        headers = {"Accept": "application/json"} | ({"Content-Type": kind} if kind else {})
        problems: list[str] = []
        with self._lock:
            # One that was kept may have ended meanwhile: the same server is asked once more.
            for server in [*self._servers[:1], *self._servers]:
                fresh = self._connection is None
                try:
                    connection = self._connected(server)
                    connection.request(method, path, body or None, headers)
                    answer = connection.getresponse()
                    return answer.status, answer.read(_LARGEST)
                except (OSError, http.client.HTTPException) as error:
                    self._drop()
                    if fresh:
                        problems.append(f"{server}: {error}")
                        self._servers.remove(server)
                        self._servers.append(server)
        said = "; ".join(dict.fromkeys(problems))
        raise ClusterError(
            f"cluster {self.cluster}: its API does not answer: {said}",
            hint=f"`bazaar cluster status --name {self.cluster}` tells how its machines are",
        )

    def _connected(self, server: str) -> http.client.HTTPSConnection:
        if self._connection is None:
            place = urlsplit(server)
            self._connection = http.client.HTTPSConnection(
                place.hostname or "", place.port, timeout=self._timeout, context=self._context
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _checked(self, method: str, path: str, status: int, answer: bytes) -> dict[str, Any]:
        try:
            found: Any = json.loads(answer)
        except ValueError:
            found = None
        if status < 300 and isinstance(found, dict):
            return cast("dict[str, Any]", found)
        said = cast("dict[str, Any]", found).get("message") if isinstance(found, dict) else ""
        message = str(said or f"status {status}")
        raise ClusterError(f"cluster {self.cluster}: {method} {path.partition('?')[0]}: {message}")


def place(wanted: Mapping[str, Any]) -> str:
    """The path of an object by which the API knows it."""
    metadata = wanted["metadata"]
    base = listing(wanted["apiVersion"], wanted["kind"], metadata.get("namespace", ""))
    return f"{base}/{quote(metadata['name'], safe='')}"


def listing(version: str, kind: str, namespace: str = "") -> str:
    """The path of all objects of a kind, in a namespace or of none."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{within}/{_plural(kind)}"


def _plural(kind: str) -> str:
    word = kind.lower()
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"


def _with(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _load(context: ssl.SSLContext, pem: str) -> None:
    """OpenSSL takes certificates from files alone: this one is in memory and nobody else's."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with contextlib.closing(os.fdopen(os.dup(descriptor), "wb")) as file:
            file.write(pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
