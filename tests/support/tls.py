"""TLS in front of a server that was built without it: ends the encryption and passes the bytes on, as stunnel does.

with TlsFront(port) as front: client(f"rediss://localhost:{front.port}", front.authority)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import trustme

from tests.support.process import free_port

_CHUNK = 65_536


class TlsFront:
    """Takes TLS on localhost:`port` for 127.0.0.1:`target`. `authority`: the file of the CA that signed its certificate."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.connections = 0
        self._target = target
        self._folder = TemporaryDirectory(prefix="stream-monitor-tls-")
        self.authority = Path(self._folder.name) / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._folder.cleanup()

    def _run(self) -> None:
        async def serve() -> None:
            await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context)
            self._ready.set()

        self._loop.run_until_complete(serve())
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError):
        sink.close()
