"""One measurement of the case `neighbours`: the good client alone, then beside the neighbour, then alone again."""

import json
import math
import os
import re
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .build import BENCH
from .cases import Series
from .kafka import Broker
from .measure import START_LIMIT, Bench, status, wait_until_healthy
from .neighbours import Neighbour, Topic, faults
from .process import Failed, Process, free_port, idle_clock, wait_for
from .systems import start_of

INTERVAL_MS = 25
CONNECTIONS = 8
SAMPLE_SECONDS = 0.1
AFTER_SECONDS = 10
# the neighbour's last answers, and what it made ready
PATIENCE_SECONDS = 60
VALUE = re.compile(r'"number":(\d+)')
# what differs between lines of log that say the same
VARIABLE = re.compile(r"[0-9a-f]{8,}|\d+")


def is_neighbour(series: Series) -> bool:
    return isinstance(series.load, Neighbour)


def measure_beside(bench: Bench, series: Series) -> dict:
    try:
        return measured(bench, series)
    except Failed as failed:
        # a service that has ended harms the most
        bench.broker.process.ensure_alive()
        return {"faults": [f"not measured: {' '.join(str(failed).split())[:300]}"]}


def measured(bench: Bench, series: Series) -> dict:
    neighbour = series.load
    # topics of its own, so that what they hold is of this measurement
    name = f"neighbour-{len(bench.broker.topics)}"
    bench.broker.topics.add(name)
    good, port = f"{name}-good", free_port()
    bench.broker.make_topic(good, 3)
    with ExitStack() as stack:
        second = stack.enter_context(bench.broker.second()) if neighbour.freezes else None
        topics = {short: f"{name}-{short}" for short in ("missing", *neighbour.topics)}
        for short, topic in neighbour.topics.items():
            broker = second if topic.frozen else bench.broker
            broker.make_topic(topics[short], topic.partitions, topic.config, topic.count)
        start = start_of(series.system, bench.tools, port, bench.broker.bootstrap, good, bench.folder)
        log = bench.folder / f"{name}.log"
        environment = {**start.environment, "LOG_LEVEL": "info", "LOG_FORMAT": "json", **neighbour.settings}
        service = stack.enter_context(Process(start.command, log, environment, bench.folder))
        wait_until_healthy(service, port)
        wait_for(lambda: status(port, "GET", "/ready") == 200, START_LIMIT, "/ready")
        attack = {"attack": neighbour.attack, "port": port, "topics": topics, "seconds": seconds_of(bench, neighbour)}
        command = [sys.executable, "-m", "harness.attacks", json.dumps(attack)]
        attacker = Process(command, bench.folder / "attack.log", folder=BENCH, piped=True)
        stack.enter_context(attacker)
        line(attacker)
        figures = beside(bench, neighbour, service, attacker, Ways(port, good, topics, second))
        figures |= read_back(bench.broker, good, figures.pop("numbers"))
        figures |= lines_of(log)
    return {**figures, "faults": faults(figures)}


def seconds_of(bench: Bench, neighbour: Neighbour) -> float:
    return bench.seconds + neighbour.lead_seconds


class Ways:
    """Where everything is."""

    def __init__(self, port: int, good: str, topics: dict[str, str], second: Broker | None):
        self.port, self.good, self.topics, self.second = port, good, topics, second


def beside(bench: Bench, neighbour: Neighbour, service: Process, attacker: Process, ways: Ways) -> dict:
    where = ["--port", ways.port, "--topic", ways.good]
    kept = 0 if neighbour.new_every == 1 else CONNECTIONS
    pace = ["--interval-ms", INTERVAL_MS, "--connections", kept, "--new-every", neighbour.new_every]
    command = [bench.tools.program("steady"), *where, *pace]
    with Process(command, bench.folder / "steady.log", piped=True) as client, sampled(service) as samples:
        # its first seconds make the topic known, and what it costs by itself
        time.sleep(2 * bench.warm_seconds)
        before_mb = recent(samples)
        service.forget_peak()
        own = [service, client, bench.broker.process, *([ways.second.process] if ways.second else [])]
        came, clock, cpu = time.time(), idle_clock(), sum(one.cpu_seconds() for one in own)
        go(attacker)
        result = during(bench.broker, neighbour, attacker, ways)
        went, cpu = time.time(), sum(one.cpu_seconds() for one in own) - cpu + result["cpu_seconds"]
        strangers = strangers_share(clock, idle_clock(), cpu)
        peak_mb = max([service.memory_mb()[1], *(mb for at, mb in samples if at >= came)])
        time.sleep(min(AFTER_SECONDS, 2 * bench.seconds))
        after_mb = recent(samples)
        service.ensure_alive()
        client.popen.stdin.close()
        answers = line(client)
    return {
        "before_mb": before_mb,
        "peak_mb": max(peak_mb, max(mb for at, mb in samples if at >= came)),
        "after_mb": after_mb,
        "told": result["told"],
        "strangers_percent": 100 * strangers,
        "seconds": went - came,
        **good_figures(answers, came, came + neighbour.lead_seconds, went),
    }


def strangers_share(before: tuple[float, float], after: tuple[float, float], own_seconds: float) -> float:
    """Of all cores' time between two looks, what went to processes that are not of this measurement."""
    idle, ticks = (one - other for one, other in zip(after, before))
    own = own_seconds * os.sysconf("SC_CLK_TCK")
    return max(0.0, ticks - idle - own) / max(1.0, ticks)


def during(broker: Broker, neighbour: Neighbour, attacker: Process, ways: Ways) -> dict:
    """What the neighbour was told and what it took, when it has gone."""
    # it has written to each topic by then, so that the frozen broker owes it answers
    time.sleep(1)
    for short, topic in neighbour.topics.items():
        if topic.then:
            broker.configure(ways.topics[short], topic.then)
    try:
        if ways.second:
            ways.second.process.popen.send_signal(signal.SIGSTOP)
        return line(attacker)
    finally:
        if ways.second:
            ways.second.process.popen.send_signal(signal.SIGCONT)


def good_figures(result: dict, came: float, counts_from: float, went: float) -> dict:
    """Counts of the whole time, but for the lead; latencies of the time with the neighbour."""
    others, in_lead, numbers = Counter(), Counter(), []
    latencies, late, sent, later, when, slow = [], [], [], [], [], []
    for number, due, became, milliseconds, behind in result["answers"]:
        at = result["started"] + due
        if became == "202":
            numbers.append(number)
        if came <= at < counts_from:
            in_lead[became] += 1
            continue
        if became != "202":
            others[became] += 1
            when.append(round(at - came, 1))
        if counts_from <= at <= went:
            latencies.append(milliseconds)
            slow.append((milliseconds, round(at - came, 1)))
            late.append(behind)
            sent.append(milliseconds - behind)
        elif at > went:
            later.append(milliseconds)
    return {
        "numbers": numbers,
        "accepted": len(numbers),
        "others": dict(others),
        # seconds after the neighbour had come
        "first_others_at": when[:5],
        "slowest_at": [at for _, at in sorted(slow)[-5:]],
        "in_lead": dict(in_lead),
        "p50_ms": quantile(latencies, 0.5),
        "p99_ms": quantile(latencies, 0.99),
        "max_ms": quantile(latencies, 1),
        "from_send_p99_ms": quantile(sent, 0.99),
        "late_p99_ms": quantile(late, 0.99),
        "late_max_ms": quantile(late, 1),
        "later_p99_ms": quantile(later, 0.99),
        "later_max_ms": quantile(later, 1),
    }


def quantile(values: list[float], share: float) -> float | None:
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)] if values else None


def read_back(broker: Broker, topic: str, numbers: list[int]) -> dict:
    """Accepted records that Kafka does not have, and records that it has more than once."""
    broker.settled_count(topic, 1, len(numbers))
    found = Counter(int(VALUE.search(value)[1]) for value in broker.values(topic))
    return {
        "written": found.total(),
        "lost": sum(1 for number in numbers if not found[number]),
        "duplicates": sum(count - 1 for count in found.values()),
    }


def lines_of(log: Path) -> dict:
    """How many there are, and the most frequent warnings and errors without what differs between them."""
    lines, loud = log.read_text(errors="replace").splitlines(), Counter()
    for text in lines:
        try:
            entry = json.loads(text)
        except ValueError:
            entry = {"level": "ERROR", "message": text}
        if entry.get("level") in ("WARN", "ERROR"):
            message = entry.get("message") or entry.get("fields", {}).get("message", "")
            loud[VARIABLE.sub("#", message)[:160]] += 1
    return {"log_lines": len(lines), "loud": dict(loud.most_common(5))}


@contextmanager
def sampled(service: Process):
    """Resident memory in MB by the time, ten times a second."""
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def sample():
        while not ended.wait(SAMPLE_SECONDS):
            try:
                samples.append((time.time(), service.memory_mb()[0]))
            except (OSError, KeyError):
                # the service has ended, which is found by who uses it
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def recent(samples: list[tuple[float, float]]) -> float:
    """The median of the last second."""
    return statistics.median(mb for at, mb in samples if at >= samples[-1][0] - 1)


def go(process: Process):
    process.popen.stdin.write("\n")
    process.popen.stdin.flush()


def line(process: Process):
    """The next line of a program, which is `ready` or JSON."""
    timer = threading.Timer(PATIENCE_SECONDS + 120, process.popen.kill)
    timer.start()
    try:
        text = process.popen.stdout.readline().strip()
    finally:
        timer.cancel()
    if not text:
        raise Failed(f"{os.path.basename(process.command[0])} gave no answer:\n{process.tail()}")
    return None if text == "ready" else json.loads(text)
