"""A relay between this machine and one other: it adds latency, and counts how often it waits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from bazaar.model.record import record

_CHUNK = 64 << 10


@record
class Relay:
    """What a relay has seen; `relayed` makes it."""

    port: int
    counts: dict[str, int]

    @property
    def turns(self) -> int:
        """How often one side spoke after the other: two are a round trip."""
        return self.counts["turns"]


@contextlib.contextmanager
def relayed(address: str, port: int = 22, latency: float = 0.0) -> Iterator[Relay]:
    """A relay to an address; each byte takes ``latency`` seconds longer, in either direction."""
    counts = {"turns": 0}
    loop = asyncio.new_event_loop()
    ready: list[int] = []
    up = threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        up.set()
        async with server:
            await server.serve_forever()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(address, port)
        last = [""]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(
                _carried(reader, to_there, "out", last, counts, latency),
                _carried(there, writer, "back", last, counts, latency),
            )

    def run() -> None:
        asyncio.set_event_loop(loop)
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serve())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert up.wait(5)
    try:
        yield Relay(ready[0], counts)
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join(5)


async def _carried(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    way: str,
    last: list[str],
    counts: dict[str, int],
    latency: float,
) -> None:
    """Bytes of one direction, each chunk its own time after it came."""
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
    loop = asyncio.get_running_loop()

    async def written() -> None:
        while True:
            at, chunk = await due.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not chunk:
                target.close()
                return
            target.write(chunk)
            await target.drain()

    writing = asyncio.ensure_future(written())
    while chunk := await source.read(_CHUNK):
        if last[0] != way:
            counts["turns"] += 1
            last[0] = way
        await due.put((loop.time() + latency, chunk))
    await due.put((loop.time() + latency, b""))
    await writing
