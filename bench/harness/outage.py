"""Measurements with Kafka away: into the spool, and out of it when Kafka is back."""

import re
import signal
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, replace

from . import load as loads
from .cases import Series
from .load import Raw, Replay, Spooling, Wrk
from .measure import IDLE_SECONDS, Bench, measure_raw, status, use_each_topic, wait_until_healthy
from .process import Failed, Process, free_port, wait_for
from .systems import start_of

# from the end of the broker to an answer that does not wait for it
AWAY_LIMIT = 60
FILL_LIMIT = 120
# from the start of the broker to the empty spool
REPLAY_LIMIT = 90
# an answer that waited for nothing but the disk
AT_ONCE_SECONDS = 0.1
LOOK_SECONDS = 0.05
WARM_SECONDS = 4


@dataclass(frozen=True)
class Look:
    """What the service says of its spool, in records since its start."""

    at: float
    stored: int
    replayed: int
    # as of the last second
    left: int
    cpu: float
    broker_cpu: float

    @property
    def behind(self) -> int:
        """Stored but not replayed: what is left, and records that were written from librdkafka's memory after all."""
        return self.stored - self.replayed


class Service:
    """A durable service with a broker that can go away."""

    def __init__(self, bench: Bench, process: Process, port: int, topic: str):
        self.bench, self.process, self.port, self.topic = bench, process, port, topic

    def look(self) -> Look:
        self.process.ensure_alive()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()

        def counter(name: str) -> int:
            return int(re.search(rf"^{re.escape(name)} (\d+)$", text, re.MULTILINE)[1])

        replayed = counter('inlet_spool_replayed_total{status="success"}')
        stored = counter("inlet_spool_stored_total")
        left = counter("inlet_spool_records")
        broker = self.bench.broker.process
        cpu, broker_cpu = self.process.cpu_seconds(), broker.cpu_seconds() if broker.is_alive() else 0.0
        return Look(time.monotonic(), stored, replayed, left, cpu, broker_cpu)

    def wait_until_away(self):
        """Until the service knows it, and answers at once."""
        path, content_type, body = loads.request_of(Wrk(1), self.topic)

        def stored_at_once() -> bool:
            started = time.monotonic()
            answer = status(self.port, "POST", path, content_type, body)
            return answer == 202 and time.monotonic() - started < AT_ONCE_SECONDS

        wait_for(lambda: all(stored_at_once() for _ in range(3)), AWAY_LIMIT, "answers from the spool")

    def wait_until_empty(self) -> tuple[Look, Look]:
        """The first look after a record was replayed, and the first without any left."""
        end, looks = time.monotonic() + REPLAY_LIMIT, [self.look()]
        while looks[-1].left:
            if time.monotonic() > end:
                raise Failed(f"{looks[-1].left:,} records are left in the spool")
            time.sleep(LOOK_SECONDS)
            looks.append(self.look())
        first = next(look for look in looks if look.replayed > looks[0].replayed)
        least = min(look.behind for look in looks)
        return first, next(look for look in looks if look.behind == least)

    @contextmanager
    def without_kafka(self):
        """The broker's process ends, and is back after the block. What is measured then is not its JVM's compilation:
        the service is held up until the broker has worked."""
        broker = self.bench.broker
        broker.process.stop()
        try:
            self.wait_until_away()
            yield
        finally:
            self.process.popen.send_signal(signal.SIGSTOP)
            try:
                broker.start()
                measure_raw(replace(self.bench, seconds=WARM_SECONDS), Raw("record"))
            finally:
                self.process.popen.send_signal(signal.SIGCONT)

    @contextmanager
    def under(self, load: Wrk):
        """The load goes on until the block is over. Yields what it comes to, then."""
        result: dict = {}
        seconds = FILL_LIMIT + REPLAY_LIMIT
        command, environment = loads.wrk_command(load, self.port, self.topic, seconds, self.bench.folder)
        with Process(command, self.bench.folder / "wrk.log", environment, piped=True) as wrk:
            yield result
            wrk.popen.send_signal(signal.SIGINT)
            result.update(loads.wrk_result(wrk.popen.communicate(timeout=60)[0]))


def is_outage(series: Series) -> bool:
    return isinstance(series.load, (Spooling, Replay))


def measure_outage(bench: Bench, series: Series) -> dict:
    topic, port = f"bench-{series.system}".replace(" ", "-"), free_port()
    bench.broker.ensure_topic(topic)
    start = start_of(series.system, bench.tools, port, bench.broker.bootstrap, topic, bench.folder)
    with Process(start.command, bench.folder / f"{series.system}.log", start.environment) as process:
        wait_until_healthy(process, port)
        time.sleep(IDLE_SECONDS)
        idle_mb = process.memory_mb()[0]
        use_each_topic(process, port, topic, Wrk(1))
        service = Service(bench, process, port, topic)
        before = bench.broker.settled_count(topic, 1, 0)
        measured = measure_spooling if isinstance(series.load, Spooling) else measure_replay
        figures, accepted, unanswered, stored = measured(service, series.load)
        written = bench.broker.settled_count(topic, 1, before + accepted) - before
        peaks = {name: figures[name] - idle_mb for name in ("away_mb", "replay_mb")}
        return {
            **figures,
            **peaks,
            "stored": stored,
            "idle_mb": idle_mb,
            "written": written,
            "lost": max(0, accepted - written),
            "duplicates": max(0, written - accepted - unanswered),
        }


def measure_spooling(service: Service, spooling: Spooling) -> tuple[dict, int, int, int]:
    bench, process, load = service.bench, service.process, spooling.load
    # connections, buffers and code are warm, as on the healthy path
    warm = loads.wrk(load, service.port, service.topic, bench.warm_seconds, bench.folder)
    process.forget_peak()
    with service.without_kafka():
        warm_away = loads.wrk(load, service.port, service.topic, bench.warm_seconds, bench.folder)
        cpu = process.cpu_seconds()
        result = loads.wrk(load, service.port, service.topic, bench.seconds, bench.folder)
        cpu = process.cpu_seconds() - cpu
        away_mb = process.memory_mb()[1]
        process.forget_peak()
    _, last = service.wait_until_empty()
    accepted = sum(one["accepted"] for one in (warm, warm_away, result))
    figures = {
        **result,
        "requests_per_second": result["accepted"] / result["seconds"],
        "records_per_second": result["accepted"] / result["seconds"],
        "cpu_per_million": cpu / result["accepted"] * 1e6,
        "away_mb": away_mb,
        "replay_mb": process.memory_mb()[1],
    }
    # one for each look whether Kafka is away, one for the last request of each connection of a load
    return figures, accepted, 1_000 + 3 * load.connections, last.stored


def measure_replay(service: Service, replay: Replay) -> tuple[dict, int, int, int]:
    process = service.process
    process.forget_peak()
    with service.without_kafka():
        started = service.look()
        with service.under(replay.filling) as filled:
            wait_for(lambda: service.look().stored >= replay.backlog, FILL_LIMIT, "the backlog", 0.2)
        ended = service.look()
        away_mb = process.memory_mb()[1]
        process.forget_peak()
    live = {"accepted": 0}
    if replay.live:
        with service.under(replay.live) as live:
            first, last = service.wait_until_empty()
    else:
        first, last = service.wait_until_empty()
    seconds = last.at - first.at
    replayed = last.replayed - first.replayed
    figures = {
        "records_per_second": replayed / seconds,
        "seconds": seconds,
        "replayed": replayed,
        "filled_per_second": (ended.stored - started.stored) / (ended.at - started.at),
        "refused": filled["refused"] + live.get("refused", 0),
        "broken": filled["broken"] + live.get("broken", 0),
        "timeouts": filled["timeouts"] + live.get("timeouts", 0),
        "away_mb": away_mb,
        "replay_mb": process.memory_mb()[1],
    }
    sent = replayed
    if replay.live:
        figures |= {name: live[name] for name in ("p50_ms", "p99_ms", "p999_ms")}
        figures["requests_per_second"] = live["accepted"] / live["seconds"]
        # those of its answers that did not come from the spool
        sent += max(0, live["accepted"] - (last.stored - ended.stored)) * seconds / live["seconds"]
    figures["cpu_per_million"] = (last.cpu - first.cpu) / sent * 1e6
    figures["broker_cpu_per_million"] = (last.broker_cpu - first.broker_cpu) / sent * 1e6
    connections = replay.filling.connections * loads.records_a_request(replay.filling)
    unanswered = 1_000 + connections + (replay.live.connections if replay.live else 0)
    filled_records = filled["accepted"] * loads.records_a_request(replay.filling)
    return figures, filled_records + live["accepted"], unanswered, last.stored
