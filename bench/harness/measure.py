"""One measurement: a system is started, warmed, loaded, counted and ended."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import load as loads
from .build import Tools
from .cases import Series
from .kafka import Broker
from .load import OnlyStart, Rate, Raw, Wrk
from .process import Failed, Process, free_port, idle_clock, wait_for
from .records import TOPIC
from .systems import start_of, writes_to_kafka

START_LIMIT = 60
FIRST_RECORDS_LIMIT = 120
IDLE_SECONDS = 2
# the last answers and what follows them belong to the load that caused them
AFTER_LOAD_SECONDS = 0.25


@dataclass(frozen=True)
class Bench:
    tools: Tools
    broker: Broker
    folder: Path
    seconds: float
    warm_seconds: float


def measure(bench: Bench, series: Series) -> dict | None:
    """None where the system is not installed."""
    if isinstance(series.load, Raw):
        return measure_raw(bench, series.load)
    topic = f"bench-{series.system}".replace(" ", "-")
    topics = loads.topics_of(series.load)
    topic = topic if topics == 1 else f"{topic}-{topics}"
    bench.broker.ensure_topic(topic, topics)
    with bench.broker.at_distance(series.round_trip_ms) as bootstrap:
        port = free_port()
        one_topic = topic if topics == 1 else f"{topic}-0"
        start = start_of(series.system, bench.tools, port, bootstrap, one_topic, bench.folder)
        if start is None:
            return None
        log = bench.folder / f"{series.system}.log"
        folder = start.folder or bench.folder
        with Process(start.command, log, start.environment, folder) as process:
            return measure_service(bench, series, process, port, topic)


def measure_service(bench: Bench, series: Series, process: Process, port: int, topic: str) -> dict:
    wait_until_healthy(process, port)
    start_ms = (time.monotonic() - process.started) * 1e3
    load = series.load
    if isinstance(load, OnlyStart):
        time.sleep(IDLE_SECONDS)
        return {"start_ms": start_ms, "idle_mb": process.memory_mb()[0]}

    use_each_topic(process, port, topic, load)
    warm_load = Wrk(32) if isinstance(load, Rate) else load
    loads.wrk(warm_load, port, topic, bench.warm_seconds, bench.folder)
    time.sleep(AFTER_LOAD_SECONDS)

    with counted(bench.broker, process, topic if writes_to_kafka(series.system) else None, load) as counts:
        if isinstance(load, Rate):
            result = loads.rate(bench.tools, load, port, topic, bench.seconds, bench.folder)
        else:
            result = loads.wrk(load, port, topic, bench.seconds, bench.folder)
        counts.accepted = result["accepted"] * loads.records_a_request(load)
        time.sleep(AFTER_LOAD_SECONDS)
    process.ensure_alive()
    result["requests_per_second"] = result["accepted"] / result["seconds"]
    # may be written without an answer that says so: the last request of each connection, and failures
    connections = 0 if isinstance(load, Rate) else load.connections
    unanswered = connections + sum(result[name] for name in ("refused", "broken", "timeouts"))
    return {
        **result,
        **counts.figures(result["seconds"], unanswered * loads.records_a_request(load)),
        "start_ms": start_ms,
        "peak_mb": process.memory_mb()[1],
    }


def wait_until_healthy(process: Process, port: int):
    def healthy() -> bool:
        process.ensure_alive()
        return status(port, "GET", "/health") == 200

    wait_for(healthy, START_LIMIT, "/health", 0.001)


def use_each_topic(process: Process, port: int, topic: str, load):
    """Waits until a record for each topic was accepted: what a system must first learn is not measured."""
    count, end = loads.topics_of(load), time.monotonic() + FIRST_RECORDS_LIMIT
    path, content_type, template = loads.request_of(Wrk(1, topics=count), topic)
    bodies = (
        [template] if count == 1 else [template.replace(TOPIC, f"{topic}-{index}") for index in range(count)]
    )

    def post_until_accepted(body: str):
        def accepted() -> bool:
            process.ensure_alive()
            return 200 <= status(port, "POST", path, content_type, body) < 300

        wait_for(accepted, end - time.monotonic(), "an accepted record for each topic")

    with ThreadPoolExecutor(min(16, count)) as executor:
        list(executor.map(post_until_accepted, bodies))


def measure_raw(bench: Bench, load: Raw) -> dict:
    topic = f"bench-raw-{load.mode}" + (f"-{load.topics}" if load.topics > 1 else "")
    bench.broker.ensure_topic(topic, load.topics)
    with loads.raw_process(
        bench.tools, load, bench.broker.bootstrap, topic, bench.seconds, bench.folder
    ) as process:
        answer_of(process)
        with counted(bench.broker, process, topic, load) as counts:
            process.popen.stdin.write("\n")
            process.popen.stdin.flush()
            result = answer_of(process)
            counts.accepted = result["acknowledged"]
        failed = result["sent"] - result["acknowledged"]
        return {
            "accepted": result["acknowledged"],
            "refused": failed,
            "broken": 0,
            "timeouts": 0,
            "seconds": result["seconds"],
            **counts.figures(result["seconds"], failed),
            "peak_mb": process.memory_mb()[1],
        }


def answer_of(process: Process):
    """The next line of a `raw` process, which ends by itself if it cannot give one."""
    line = process.popen.stdout.readline().strip()
    if not line:
        raise Failed(f"raw gave no answer:\n{process.tail()}")
    return line if line == "ready" else json.loads(line)


class Counts:
    accepted = 0
    cpu = broker_cpu = idle = 0.0
    written: int | None = None

    def figures(self, seconds: float, unanswered: int) -> dict:
        """Seconds of CPU per million accepted records, and accepted records against those that Kafka has."""
        millions = self.accepted / 1e6
        figures = {
            "records": self.accepted,
            "records_per_second": self.accepted / seconds,
            "cpu_seconds": self.cpu,
            "cpu_per_million": self.cpu / millions if millions else None,
            "broker_cpu_per_million": self.broker_cpu / millions if millions else None,
            "machine_idle": self.idle,
        }
        if self.written is not None:
            figures["written"] = self.written
            figures["lost"] = max(0, self.accepted - self.written)
            figures["duplicates"] = max(0, self.written - self.accepted - unanswered)
        return figures


@contextmanager
def counted(broker: Broker, process: Process, topic: str | None, load):
    """Measures CPU time and high watermarks around its block, which sets `accepted`."""
    counts, topics = Counts(), loads.topics_of(load)
    before = broker.settled_count(topic, topics, 0) if topic else 0
    cpu, broker_cpu, (idle, ticks) = process.cpu_seconds(), broker.process.cpu_seconds(), idle_clock()
    yield counts
    counts.cpu = process.cpu_seconds() - cpu
    counts.broker_cpu = broker.process.cpu_seconds() - broker_cpu
    idle_after, ticks_after = idle_clock()
    counts.idle = (idle_after - idle) / max(1, ticks_after - ticks)
    if topic:
        counts.written = broker.settled_count(topic, topics, before + counts.accepted) - before


def status(port: int, method: str, path: str, content_type: str = "text/plain", body: str = "") -> int:
    """The status of one request on a connection of its own; 0 if there is none."""
    data = body.encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    if data:
        head += f"content-type: {content_type}\r\ncontent-length: {len(data)}\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), 15) as connection:
            connection.sendall(head.encode() + b"\r\n" + data)
            return int(connection.recv(4096).split(b" ", 2)[1])
    except (OSError, IndexError, ValueError):
        return 0
