"""A TCP proxy between a client and its server: it can cut them off, refuse, hold answers back, and lead elsewhere.

with Proxy(port) as proxy: client(proxy.port)
proxy.cut()         # connections stay open, nothing passes: a network that swallows everything
proxy.heal()
proxy.hold = 2.0    # answers come so many seconds late, requests at once
proxy.target = 4321; proxy.drop()    # new connections go there; the old ones are closed
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

from tests.support.process import free_port

_CHUNK = 65_536


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`."""

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.port = free_port()
        self.hold = 0.0
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing passes any more, in either direction; what is under way is not lost, as TCP would have it."""
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    def drop(self) -> None:
        """Closes every connection; new ones are accepted."""
        for one in list(self._sockets):
            _close(one)

    def close(self) -> None:
        self._closed = True
        _close(self._listener)
        self._open.set()
        self.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.wait()  # a network that swallows everything also swallows the greeting of a server
        try:
            server = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            _close(client)
            return
        server.settimeout(None)
        pair = {client, server}
        self._sockets |= pair
        for source, sink, is_answer in ((client, server, False), (server, client, True)):
            for one in pair:
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, sink, is_answer), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(_CHUNK):
                self._open.wait()
                if is_answer and self.hold:
                    time.sleep(self.hold)
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            _close(one)
            self._sockets.discard(one)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
