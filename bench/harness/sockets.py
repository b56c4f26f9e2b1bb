"""The neighbours' side of HTTP/1.1, without a library that would keep them from misbehaving."""

import asyncio
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator

ERROR = re.compile(rb'"error":"(\w+)"')
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
AFTER_A_BREAK_SECONDS = 0.02


def post(path: str, body: bytes, *headers: str) -> bytes:
    return head("POST", path, f"content-length: {len(body)}", "content-type: application/json", *headers) + body


def get(path: str) -> bytes:
    return head("GET", path)


def head(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def record(topic: str, value, **members) -> dict:
    return {"topic": topic, "project": "neighbour", "value": value, **members}


def text(value) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Connection:
    """Kept as long as the service keeps it, then made anew."""

    def __init__(self, port: int):
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def open(self):
        if self.writer is None or self.reader.at_eof():
            self.close()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    def close(self):
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def told(self) -> str:
        """The next answer: its status, and the name of its error."""
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(answer)
        body = await self.reader.readexactly(int(length[1]) if length else 0)
        status = answer.split(b" ", 2)[1].decode()
        if b"\r\nconnection: close" in answer.lower():
            self.close()
        error = ERROR.search(body) if status[0] in "45" else None
        return f"{status} {error[1].decode()}" if error else status

    async def ask(self, request: bytes) -> str:
        await self.open()
        # an answer may come before all of a large body is sent, and end the connection
        self.writer.write(request)
        return await self.told()


async def client(port: int, tally: Counter, requests: Iterable[bytes], pause: float = 0):
    """Sends the next when the answer to the last has come, and `pause` seconds have passed."""
    connection = Connection(port)
    for request in requests:
        await counted(connection, tally, connection.ask(request))
        if pause:
            await asyncio.sleep(pause)


async def counted(connection: Connection, tally: Counter, asking):
    """What becomes of a request, or of what a client does in its place."""
    try:
        tally[await asking] += 1
    except (OSError, asyncio.IncompleteReadError) as error:
        connection.close()
        closed = isinstance(error, (ConnectionError, asyncio.IncompleteReadError))
        tally["closed" if closed else type(error).__name__] += 1
        await asyncio.sleep(AFTER_A_BREAK_SECONDS)
    except asyncio.CancelledError:
        tally["no answer"] += 1
        raise


def again(*requests: bytes) -> Iterator[bytes]:
    """In turn, for ever."""
    while True:
        yield from requests


def connected(port: int, *options: tuple[int, int, int | bytes]) -> socket.socket:
    """A plain socket that does not block once it is connected."""
    plain = socket.socket()
    for option in options:
        plain.setsockopt(*option)
    plain.settimeout(5)
    try:
        plain.connect(("127.0.0.1", port))
    except OSError:
        plain.close()
        raise
    plain.setblocking(False)
    return plain


# closing sends a reset, which leaves no port behind that cannot be used for a minute
RESET_ON_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
SMALL_WINDOW = (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


async def hold(port: int, tally: Counter, count: int, request: bytes, *options, anew: bool = True):
    """Keeps `count` sockets on which `request` was sent, and reads the first bytes of the answer, at the end or when
    the service has closed."""
    held: list[socket.socket] = []

    def settle(plain: socket.socket):
        try:
            answer = plain.recv(12)
            tally[answer[9:12].decode() if answer else "closed"] += 1
        except BlockingIOError:
            tally["no answer"] += 1
        except OSError:
            tally["closed"] += 1
        plain.close()

    try:
        while True:
            while len(held) < count:
                try:
                    held.append(connected(port, *options))
                    held[-1].send(request)
                except OSError:
                    tally["not connected"] += 1
                    break
                # others of this machine have their turn
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            ended = [plain for plain in held if anew and was_closed(plain)]
            held = [plain for plain in held if plain not in ended]
            for plain in ended:
                settle(plain)
    finally:
        for plain in held:
            settle(plain)


def was_closed(plain: socket.socket) -> bool:
    """TCP_INFO's first byte is the state of the connection: 1 while both sides are open."""
    return plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1
