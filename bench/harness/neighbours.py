"""The case `neighbours`: a good client beside each of those that ask too much, and what it must not notice of them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .cases import INLET, Case, Series
from .durable import DURABLE
from .report import Results, table

P99_MS = 100
GROWTH_MB = 64
MAX_CONNECTIONS = 200
# what the smallest topic takes in one batch, and what another one takes from the second second on
SMALL = {"max.message.bytes": 10_000}
LOWERED = {"max.message.bytes": 2_000}
BOUNDED = {"message.timestamp.before.max.ms": 3_600_000}
COMPACTED = {"cleanup.policy": "compact"}
OTHER_TOPICS = 1_000


@dataclass(frozen=True)
class Topic:
    config: dict = field(default_factory=dict)
    count: int = 1
    partitions: int = 3
    # led by a second broker, which stands still from one second after the neighbour has come until it goes
    frozen: bool = False
    # its settings from one second after the neighbour has come
    then: dict | None = None


@dataclass(frozen=True)
class Neighbour:
    """`attack` is a function of `attacks`."""

    attack: str
    # by the name that the attack has for it; the others that it names do not exist
    topics: dict[str, Topic] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    # of so many requests of the good client one is a new client's, with a connection of its own; 0: none
    new_every: int = 10
    # what the good client is told so soon after the neighbour has come does not count
    lead_seconds: float = 0

    @property
    def freezes(self) -> bool:
        return any(topic.frozen for topic in self.topics.values())


def neighbours() -> Case:
    refused = {"small": Topic(SMALL), "lowered": Topic(then=LOWERED)}
    taken = {"taken": Topic()}
    few = {"MAX_CONNECTIONS": str(MAX_CONNECTIONS)}
    rows = {
        "nobody": Neighbour("nobody"),
        "unknown topics": Neighbour("unknown_topics"),
        "refused batches": Neighbour("refused_batches", refused),
        "refused batches and a frozen broker": Neighbour(
            "refused_batches_and_frozen_broker", {**refused, "frozen": Topic(frozen=True)}
        ),
        "first use of 1,000 topics": Neighbour("first_use", {"many": Topic(count=OTHER_TOPICS, partitions=1)}),
        "stalled bodies": Neighbour("stalled_bodies"),
        "trickled bodies": Neighbour("trickled_bodies"),
        "unread answers": Neighbour("unread_answers"),
        "bombs": Neighbour("bombs"),
        "empty members": Neighbour("empty_members"),
        "8 MB of JSON": Neighbour("eight_megabytes", taken),
        "deep nesting": Neighbour("deep_nesting", taken),
        "5,000 records alone": Neighbour("singles", taken),
        "idle connections": Neighbour("idle_connections", settings=few, new_every=0),
        "idle connections for new clients": Neighbour(
            "idle_connections_once", settings=few, new_every=1, lead_seconds=7
        ),
        "half heads": Neighbour("half_heads", settings=few, new_every=0),
        "connect and close": Neighbour("connect_and_close"),
        "poison records": Neighbour("poison", {"compacted": Topic(COMPACTED), "bounded": Topic(BOUNDED)}),
    }
    durable = {
        "nobody with the spool": Neighbour("nobody"),
        "look-ups of receipts": Neighbour("receipts"),
        "a stuck backlog": Neighbour("stuck_backlog"),
    }
    series = [Series(label, INLET, row) for label, row in rows.items()]
    series += [Series(label, DURABLE, row) for label, row in durable.items()]
    title = "A good client, 40 records a second, beside a neighbour that asks too much"
    return Case("neighbours", title, series, [], table=neighbours_table)


def faults(figures: dict) -> list[str]:
    """Why the good client has suffered; none: it has not."""
    found = []
    if figures["others"]:
        found.append(f"other answers than 202: {told(figures['others'])}")
    # from the send: that the good client itself was late is of the machine that all share
    if figures["from_send_p99_ms"] is None or figures["from_send_p99_ms"] > P99_MS:
        found.append(f"p99 above {P99_MS} ms")
    for name, when in (("peak_mb", "at the peak"), ("after_mb", "at the end")):
        if figures[name] - figures["before_mb"] > GROWTH_MB:
            found.append(f"{figures[name] - figures['before_mb']:.0f} MB more {when}")
    found += [f"records {name}: {figures[name]}" for name in ("lost", "duplicates") if figures[name]]
    return found


def told(counts: dict[str, int], most: int = 6) -> str:
    """What was answered and how often, the most frequent first."""
    common = Counter(counts).most_common()
    shown = [f"{answer} × {count:,}" for answer, count in common[:most]]
    rest = sum(count for _, count in common[most:])
    return ", ".join(shown + ([f"others × {rest:,}"] if rest else []))


COLUMNS: list[tuple[str, Callable[[list[dict]], str]]] = [
    ("202", lambda rounds: f"{sum(one.get('accepted', 0) for one in rounds):,}"),
    ("others", lambda rounds: told(total(rounds, "others")) or "0"),
    ("p50 ms", lambda rounds: worst(rounds, "p50_ms")),
    ("p99 ms", lambda rounds: worst(rounds, "p99_ms")),
    ("max ms", lambda rounds: worst(rounds, "max_ms")),
    ("p99 from the send", lambda rounds: worst(rounds, "from_send_p99_ms")),
    ("own delay p99, max", lambda rounds: f"{worst(rounds, 'late_p99_ms')}, {worst(rounds, 'late_max_ms')}"),
    ("strangers %", lambda rounds: worst(rounds, "strangers_percent", 0)),
    ("MB before", lambda rounds: worst(rounds, "before_mb")),
    ("peak", lambda rounds: worst(rounds, "peak_mb")),
    ("after", lambda rounds: worst(rounds, "after_mb")),
    ("lost", lambda rounds: worst(rounds, "lost", 0)),
    ("twice", lambda rounds: worst(rounds, "duplicates", 0)),
    ("the neighbour was told", lambda rounds: told(total(rounds, "told")) or "–"),
    ("log lines", lambda rounds: worst(rounds, "log_lines", 0)),
    ("", lambda rounds: verdict(rounds)),
]


def neighbours_table(results: Results, case: Case) -> str:
    """The counts of all rounds, and the worst figures of any."""
    rows = [["beside", *(header for header, _ in COLUMNS)]]
    for one in case.series:
        rounds = results.of(case, one.label)
        if rounds:
            rows.append([one.label, *(value(rounds) for _, value in COLUMNS)])
    return table(rows)


def total(rounds: list[dict], name: str) -> Counter:
    return sum((Counter(one.get(name)) for one in rounds), Counter())


def worst(rounds: list[dict], name: str, decimals: int = 1) -> str:
    values = [one[name] for one in rounds if one.get(name) is not None]
    return f"{max(values):,.{decimals}f}" if values else "–"


def verdict(rounds: list[dict]) -> str:
    found = sorted({fault for one in rounds for fault in one["faults"]})
    return f"**FAILS**: {'; '.join(found)}" if found else "unharmed"
