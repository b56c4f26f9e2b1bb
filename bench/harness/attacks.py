"""The neighbours: programs that ask too much of the service, each by its name, in a process of its own.

`python -m harness.attacks JSON` with `attack`, `port`, `seconds` and `topics` gets ready, writes `ready`, waits for a line, goes on for so
many seconds, and writes what it was told (answers by status and error, and how often) and what it took of the processors.
"""

import asyncio
import gzip
import itertools
import json
import os
import sys
import time
import uuid
import zlib
from collections import Counter

from .sockets import (
    AFTER_A_BREAK_SECONDS,
    RESET_ON_CLOSE,
    SMALL_WINDOW,
    Connection,
    again,
    client,
    connected,
    counted,
    get,
    head,
    hold,
    post,
    record,
    text,
)

MEBIBYTE = 1 << 20
BODY = 8 * MEBIBYTE
GZIP = "content-encoding: gzip"
SINGLE, BATCH = "/produce", "/produce/batch"
UNKNOWN_RECEIPT = "/receipts/bench-18a3f2b1c4d5e6f7"


class Attack:
    """Where to, and what was told."""

    def __init__(self, port: int, topics: dict[str, str]):
        self.port, self.topics, self.tally = port, topics, Counter()

    def clients(self, count: int, requests, pause: float = 0) -> list:
        """`requests` is shared by all of them."""
        return [client(self.port, self.tally, requests, pause) for _ in range(count)]


def nobody(_: Attack) -> list:
    return []


def unknown_topics(attack: Attack) -> list:
    """400 names a second one by one, and 400 in batches of 100."""
    run, numbers = uuid.uuid4().hex[:8], itertools.count()

    def unknown() -> dict:
        return record(f"no-{run}-{next(numbers)}", 1)

    singles = (post(SINGLE, text(unknown())) for _ in itertools.count())
    batches = (post(BATCH, text([unknown() for _ in range(100)])) for _ in itertools.count())
    return attack.clients(20, singles, 0.05) + attack.clients(1, batches, 0.25)


def refused_batches(attack: Attack) -> list:
    """More than one topic takes in a batch; and records of a topic that takes less than it did."""
    small = post(BATCH, text([record(attack.topics["small"], "x" * 1_000) for _ in range(100)]))
    lowered = post(BATCH, text([record(attack.topics["lowered"], "x" * 5_000) for _ in range(10)]))
    return attack.clients(4, again(small), 0.01) + attack.clients(4, again(lowered), 0.01)


def refused_batches_and_frozen_broker(attack: Attack) -> list:
    frozen = post(SINGLE, text(record(attack.topics["frozen"], "x" * 1_000)))
    return refused_batches(attack) + attack.clients(50, again(frozen), 0.02)


def first_use(attack: Attack) -> list:
    """150 topics in one batch, then a request every 5 ms to the next of 1,000."""
    names = [f"{attack.topics['many']}-{number}" for number in range(1_000)]
    batch = post(BATCH, text([record(name, 1) for name in names[:150]]))
    singles = [post(SINGLE, text(record(name, 1))) for name in names[150:] + names[:150]]
    return attack.clients(1, [batch]) + attack.clients(16, again(*singles), 0.08)


def stalled_bodies(attack: Attack) -> list:
    """The first half of 8 MiB as fast as it is taken, and then nothing."""
    return [slow_body(attack, BODY // 2, 30) for _ in range(8)]


def trickled_bodies(attack: Attack) -> list:
    """A byte every 100 ms."""
    return [slow_body(attack, 64 << 10, 0.1) for _ in range(8)]


async def slow_body(attack: Attack, at_once: int, pause: float):
    connection = Connection(attack.port)

    async def ask() -> str:
        await connection.open()
        connection.writer.write(head("POST", BATCH, f"content-length: {BODY}") + b"[" + b" " * (at_once - 1))
        told = asyncio.create_task(connection.told())
        try:
            while not (await asyncio.wait([told], timeout=pause))[0]:
                connection.writer.write(b" ")
            return await told
        finally:
            told.cancel()

    while True:
        await counted(connection, attack.tally, ask())
        connection.close()


def unread_answers(attack: Attack) -> list:
    """500 sockets that ask for 10,000 faults each, and read none of the answer."""
    body = gzip.compress(text([{}] * 10_000))
    request = post(BATCH, body, GZIP)
    return [hold(attack.port, attack.tally, 500, request, SMALL_WINDOW)]


def idle_connections(attack: Attack) -> list:
    """Used once and kept, more than there are places; made anew where the service closes them."""
    return [hold(attack.port, attack.tally, 250, get("/"))]


def idle_connections_once(attack: Attack) -> list:
    return [hold(attack.port, attack.tally, 200, get("/"), anew=False)]


def half_heads(attack: Attack) -> list:
    return [hold(attack.port, attack.tally, 250, b"POST /logs HTTP/1.1\r\nhost: 127.0.0.1\r\nx-half:")]


def connect_and_close(attack: Attack) -> list:
    """As fast as it can; every other one sends a request that it does not wait for."""

    async def run():
        request = get("/")
        for number in itertools.count():
            try:
                plain = connected(attack.port, RESET_ON_CLOSE)
                if number % 2:
                    plain.send(request)
                plain.close()
                attack.tally["connected"] += 1
            except OSError:
                attack.tally["not connected"] += 1
                await asyncio.sleep(AFTER_A_BREAK_SECONDS)
            if number % 100 == 0:
                await asyncio.sleep(0)

    return [run()]


def bombs(attack: Attack) -> list:
    """64 kB that unpack to 64 MiB, in gzip and in deflate."""
    zeros = bytes(64 * MEBIBYTE)
    packed = post(SINGLE, gzip.compress(zeros), GZIP)
    deflated = post(SINGLE, zlib.compress(zeros), "content-encoding: deflate")
    return attack.clients(8, again(packed, deflated))


def empty_members(attack: Attack) -> list:
    """400,000 gzip members of nothing, which is 8 MB."""
    return attack.clients(4, again(post(SINGLE, gzip.compress(b"") * 400_000, GZIP)))


def eight_megabytes(attack: Attack) -> list:
    """One record of 8 MB, which no topic takes, and a batch of 8 MB, which is taken."""
    topic = attack.topics["taken"]
    members = {f"member-{number:06}": [number, True, None, "text"] for number in range(175_000)}
    large = post(SINGLE, text(record(topic, members)))
    batch = post(BATCH, text([record(topic, {"text": "x" * 700}) for _ in range(10_000)]))
    return attack.clients(2, again(large)) + attack.clients(2, again(batch), 0.1)


def deep_nesting(attack: Attack) -> list:
    """Of all the body, of a value by one too much, and of 7,500 records by as much as is allowed."""
    topic = attack.topics["taken"]

    def nested(depth: int, value: str = "0") -> bytes:
        frame = text(record(topic, "@")).decode()
        return frame.replace('"@"', "[" * depth + value + "]" * depth).encode()

    bottomless = post(SINGLE, b"[" * (BODY - 1))
    too_deep = post(SINGLE, nested(4_000_000))
    deep = post(BATCH, b"[" + b",".join([nested(510)] * 7_500) + b"]")
    return attack.clients(4, again(bottomless, too_deep)) + attack.clients(1, again(deep), 0.1)


def singles(attack: Attack) -> list:
    """5,000 requests of one record at once, ten on each of 500 connections, every two seconds."""
    requests = post(SINGLE, text(record(attack.topics["taken"], "alone"))) * 10

    async def ten(connection: Connection):
        async def first() -> str:
            await connection.open()
            connection.writer.write(requests)
            return await connection.told()

        await counted(connection, attack.tally, first())
        for _ in range(9):
            if connection.reader:
                await counted(connection, attack.tally, connection.told())

    async def bursts():
        connections = [Connection(attack.port) for _ in range(500)]
        while True:
            pause = asyncio.create_task(asyncio.sleep(2))
            await asyncio.gather(*map(ten, connections))
            await pause

    return [bursts()]


def poison(attack: Attack) -> list:
    """Records without a key for a compacted topic, and records from long ago, one by one and in batches."""
    bad = [record(attack.topics["compacted"], 1), record(attack.topics["bounded"], 1, timestamp=1_000_000_000_000)]
    requests = [post(SINGLE, text(one)) for one in bad] + [post(BATCH, text([one] * 10)) for one in bad]
    return attack.clients(8, again(*requests), 0.002)


def receipts(attack: Attack) -> list:
    """Unknown ones as fast as it can, and 200 clients that wait for a record which cannot be sent."""
    stored = post(SINGLE, text(record(attack.topics["missing"], 1)), "prefer: respond-async")

    async def waiting():
        connection = Connection(attack.port)
        await connection.open()
        connection.writer.write(stored)
        answer = await connection.reader.readuntil(b"\r\n\r\n")
        path = next(line for line in answer.decode().split("\r\n") if line.startswith("location:")).split()[1]
        connection.close()
        waits = again(get(f"{path}?wait=10s"), get(f"{UNKNOWN_RECEIPT}?wait=10s"))
        await asyncio.gather(*attack.clients(200, waits))

    return [waiting()] + attack.clients(8, again(get(UNKNOWN_RECEIPT)))


def stuck_backlog(attack: Attack) -> list:
    """40,000 records that cannot be sent, and 1,000 more a second where they are taken."""
    topic, later = attack.topics["missing"], "prefer: respond-async"
    many = post(BATCH, text([record(topic, {"text": "x" * 200}) for _ in range(10_000)]), later)
    more = post(BATCH, text([record(topic, {"text": "x" * 200}) for _ in range(100)]), later)
    # side by side: once the service has asked for the topic, it refuses most of them
    return attack.clients(4, [many]) + attack.clients(1, again(more), 0.1)


ATTACKS = {
    attack.__name__: attack
    for attack in (
        nobody,
        unknown_topics,
        refused_batches,
        refused_batches_and_frozen_broker,
        first_use,
        stalled_bodies,
        trickled_bodies,
        unread_answers,
        bombs,
        empty_members,
        eight_megabytes,
        deep_nesting,
        singles,
        idle_connections,
        idle_connections_once,
        half_heads,
        connect_and_close,
        poison,
        receipts,
        stuck_backlog,
    )
}


async def run(attack: Attack, parts: list, seconds: float):
    tasks = [asyncio.ensure_future(part) for part in parts]
    await asyncio.wait([*tasks, asyncio.create_task(asyncio.sleep(seconds))], timeout=seconds)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            attack.tally[f"FAULT OF THE NEIGHBOUR: {result!r}"] += 1


def main():
    asked = json.loads(sys.argv[1])
    # a real neighbour has a machine of its own: here those whom it is compared with go first
    os.nice(10)
    attack = Attack(asked["port"], asked["topics"])
    parts = ATTACKS[asked["attack"]](attack)
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(run(attack, parts, asked["seconds"]))
    print(json.dumps({"told": attack.tally, "cpu_seconds": time.process_time()}), flush=True)


if __name__ == "__main__":
    main()
