"""Machines that are none: an SSH server for each, which answers as a fresh machine would.

It tells the facts a machine told, and says of every other script that it did what was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncssh

from bazaar.cluster.parts import Programs
from bazaar.model.record import record

_LOADED = "Prints what a machine is and holds"  # how the script of the facts begins


@record
class Machines:
    """The machines, and what was said to them and by them; `simulated` makes it."""

    places: list[str]  # NAME=ADDRESS:PORT
    key: str
    known_hosts: str
    sessions: list[int]  # by machine: each is a round trip or three, whatever it carries
    payload: list[int]  # by machine: bytes of scripts and answers

    def forget(self) -> None:
        """Count from here."""
        self.sessions[:] = [0] * len(self.places)
        self.payload[:] = [0] * len(self.places)


@contextlib.contextmanager
def simulated(
    count: int, folder: Path, sets: Sequence[Programs], *, late: float = 0.0
) -> Iterator[Machines]:
    """``count`` machines at ports of this one, with addresses of a network of their own.

    ``late`` is by how many seconds their clocks are behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "key").write_bytes(key.export_private_key())
    (folder / "key").chmod(0o600)
    (folder / "authorized").write_bytes(key.export_public_key())
    made = Machines([], str(folder / "key"), str(folder / "known_hosts"), [0] * count, [0] * count)
    told = (Path(__file__).parent / "machine.facts").read_text().removesuffix("end=facts\n")
    told += "".join(f"set {one.manifest} {one.there}\n" for one in sets)
    loop = asyncio.new_event_loop()
    up = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as opened:
            for number in range(count):
                facts = f"{told.replace('10.253.0.11', f'10.1.0.{number + 1}')}end=facts\n"
                server = await asyncssh.listen(
                    "127.0.0.1",
                    0,
                    server_host_keys=[key],
                    authorized_client_keys=str(folder / "authorized"),
                    process_factory=_answering(made, number, facts, late),
                    encoding=None,
                )
                opened.callback(server.close)
                made.places.append(f"n{number}=127.0.0.1:{server.get_port()}")
            public = " ".join(key.export_public_key().decode().split()[:2])
            ports = [place.rpartition(":")[2] for place in made.places]
            lines = "".join(f"[127.0.0.1]:{port} {public}\n" for port in ports)
            (folder / "known_hosts").write_text(lines)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert up.wait(60)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def _answering(made: Machines, number: int, facts: str, late: float):
    async def answer(process: asyncssh.SSHServerProcess[bytes]) -> None:
        text = await process.stdin.read()
        clock = f"{time.time() - late:.6f}"
        said = facts.replace("@CLOCK@", clock).encode() if _LOADED.encode() in text[:300] else b""
        made.sessions[number] += 1
        made.payload[number] += len(text) + len(said)
        process.stdout.write(said)
        process.exit(0)

    return answer
