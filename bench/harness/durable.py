"""What is measured of durable delivery, and what is to be reached."""

from .cases import INLET, Case, Goal, Series, at_least, at_most
from .load import Replay, Spooling, Wrk

DURABLE = f"{INLET} durable"
BACKLOG = 2_000_000
REPLAYED_PER_SECOND = 300_000
# twice what MAX_IN_FLIGHT_BYTES is unless it is set, in units of 1,000,000 bytes
MEMORY_MB = 2 * (32 << 20) / 1e6
HEALTHY, AWAY = "Kafka healthy", "Kafka away"


def durable_cases() -> list[Case]:
    return [
        beside_direct("durable-300", "One record a request, 300 connections", Wrk(300)),
        beside_direct("durable-64", "One record a request, 64 connections", Wrk(64)),
        beside_direct("durable-batch-1000", "1,000 records a request, 8 connections", Wrk(8, 1000)),
        *(spooling(count) for count in (300, 64)),
        replay(),
    ]


def beside_direct(name: str, title: str, load: Wrk) -> Case:
    series = [Series(system, system, load) for system in (INLET, DURABLE)]
    goals = [at_most("cpu", 1.1, DURABLE, INLET)]
    return Case(name, f"{title}: with and without the spool, Kafka healthy", series, goals, INLET)


def spooling(count: int) -> Case:
    series = [Series(HEALTHY, DURABLE, Wrk(count)), Series(AWAY, DURABLE, Spooling(Wrk(count)))]
    goals = [at_least("requests", 0.6, AWAY, HEALTHY), memory(AWAY, "away_mb")]
    return Case(
        f"spooling-{count}", f"Into the spool, one record a request, {count} connections", series, goals, HEALTHY
    )


def replay() -> Case:
    keyed, keyless = Wrk(8, 1000, key_sets=10), Wrk(8, 1000)
    beside = {
        "keyed": Replay(BACKLOG, keyed),
        "keyless": Replay(BACKLOG, keyless),
        "keyed, beside 64 connections": Replay(BACKLOG, keyed, Wrk(64)),
        "keyed, beside 64 connections with its keys": Replay(BACKLOG, keyed, Wrk(64, key_sets=10)),
    }
    series = [Series(label, DURABLE, load) for label, load in beside.items()]
    goals = [
        Goal(
            f"{one.label}: records/s",
            REPLAYED_PER_SECOND,
            lambda figure, label=one.label: figure(label, "records_per_second"),
            at_most=False,
        )
        for one in series
    ]
    goals += [memory(one.label, key) for one in series for key in ("away_mb", "replay_mb")]
    return Case("replay", f"The replay of {BACKLOG:,} records", series, goals)


def memory(label: str, key: str) -> Goal:
    when = {"away_mb": "while Kafka is away", "replay_mb": "in the replay"}[key]
    text = f"{label}: peak above idle {when}, against twice MAX_IN_FLIGHT_BYTES"
    return Goal(text, MEMORY_MB, lambda figure: figure(label, key), unit=" MB")
