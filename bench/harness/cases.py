"""What is measured, and what is to be reached. Series are measured in their order."""

from collections.abc import Callable
from dataclasses import dataclass

from .load import OnlyStart, Rate, Raw, Wrk

INLET, BARE_HEADERS = "kafka-inlet", "kafka-inlet without headers"
BASELINES = ("naive", "benthos", "express", "fastapi")
VALUE_SIZES = (100, 1_000, 10_000, 100_000)
CONNECTIONS = (64, 300, 1_000, 2_000)
ROUND_TRIPS = (0.5, 2.0, 10.0)
TOPICS = 1_000

# the figure `metric` of the series `label` in one round, or None
Figure = Callable[[str, str], float | None]


@dataclass(frozen=True)
class Series:
    label: str
    system: str
    load: Wrk | Rate | Raw | OnlyStart
    # milliseconds to the broker and back, through a relay; None: without one
    round_trip_ms: float | None = None


@dataclass(frozen=True)
class Goal:
    text: str
    bound: float
    # computed for each round alone, since only what ran side by side can be compared
    value: Callable[[Figure], float | None]
    at_most: bool = True
    unit: str = ""

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    series: list[Series]
    goals: list[Goal]
    # label of the series that the table's ratios are against
    reference: str | None = None
    # of the results and the case; None: the usual one
    table: Callable | None = None


def all_cases() -> list[Case]:
    return [
        singles(
            300, [at_most("cpu", 1.1, INLET, "bare"), at_most("cpu", 1.0, BARE_HEADERS, "bare"), peak(INLET)]
        ),
        singles(
            64,
            [
                at_most("cpu", 1.3, INLET, "bare"),
                at_least("requests", 0.5, INLET, "bare"),
                at_most("p50", 2.4, INLET, "bare"),
            ],
        ),
        fixed_rate(),
        batches(100, 16, [at_most("cpu", 1.2, f"{INLET}, {kind}", "raw") for kind in ("array", "NDJSON")]),
        batches(
            1000,
            8,
            [
                *(at_most("cpu", 1.0, f"{INLET}, {kind}", "raw") for kind in ("array", "NDJSON")),
                *(at_least("records", 0.85, f"{INLET}, {kind}", "raw") for kind in ("array", "NDJSON")),
                at_most("cpu", 1.1, BARE_HEADERS, "raw base"),
                peak(f"{INLET}, array"),
            ],
        ),
        start(),
        connections(),
        one_connection(),
        many_topics(),
        value_sizes(),
        *(round_trips(count) for count in (300, 2_000)),
    ]


def singles(count: int, goals: list[Goal]) -> Case:
    names = ["bare", INLET, BARE_HEADERS, *BASELINES]
    series = [Series(name, name, Wrk(count)) for name in names]
    return Case(f"singles-{count}", f"One record a request, {count} connections", series, goals, "bare")


def fixed_rate() -> Case:
    series = [Series(name, name, Rate(300)) for name in ("bare", INLET, *BASELINES)]
    goals = [at_most("p50", 1.4, INLET, "bare"), at_most("p99", 2.0, INLET, "bare")]
    return Case("rate-300", "300 requests a second from 300 clients", series, goals, "bare")


def batches(records: int, count: int, goals: list[Goal]) -> Case:
    series = [
        Series("raw", "raw", Raw("record")),
        Series(f"{INLET}, array", INLET, Wrk(count, records)),
        Series(f"{INLET}, NDJSON", INLET, Wrk(count, records, ndjson=True)),
        Series("raw base", "raw", Raw("base")),
        Series(BARE_HEADERS, BARE_HEADERS, Wrk(count, records)),
        *(Series(name, name, Wrk(count, records)) for name in ("bare", *BASELINES)),
    ]
    return Case(
        f"batch-{records}", f"{records:,} records a request, {count} connections", series, goals, "raw"
    )


def start() -> Case:
    series = [Series(name, name, OnlyStart()) for name in ("bare", INLET, *BASELINES)]
    goals = [
        Goal(
            f"{INLET}: start to the first 200 of /health",
            30,
            lambda figure: figure(INLET, "start_ms"),
            unit=" ms",
        ),
        Goal(f"{INLET}: resident memory when idle", 15, lambda figure: figure(INLET, "idle_mb"), unit=" MB"),
    ]
    return Case("start", "Start, and memory when idle", series, goals)


def connections() -> Case:
    def spread(figure: Figure) -> float | None:
        costs = [figure(f"{INLET}, {count:,}", "cpu_per_million") for count in CONNECTIONS]
        return max(costs) / min(costs) if all(costs) else None

    series = [Series(f"{INLET}, {count:,}", INLET, Wrk(count)) for count in CONNECTIONS]
    goal = Goal(
        f"{INLET}: dearest ÷ cheapest CPU, {CONNECTIONS[0]} to {CONNECTIONS[-1]:,} connections", 1.2, spread
    )
    return Case("connections", "Cost against the number of connections", series, [goal], series[0].label)


def one_connection() -> Case:
    series = [
        Series("raw, one at a time", "raw", Raw("record", outstanding=1)),
        Series("bare", "bare", Wrk(1)),
        Series(INLET, INLET, Wrk(1)),
    ]
    return Case("one-connection", "One connection", series, [at_most_sum(1.2, series)], "bare")


def many_topics() -> Case:
    series = [
        Series("raw, 300 at a time", "raw", Raw("record", outstanding=300, topics=TOPICS)),
        Series("bare", "bare", Wrk(300, topics=TOPICS)),
        Series(INLET, INLET, Wrk(300, topics=TOPICS)),
    ]
    return Case(
        "topics",
        f"{TOPICS:,} evenly loaded topics, 300 connections",
        series,
        [at_most_sum(1.2, series)],
        "bare",
    )


def value_sizes() -> Case:
    def label(name: str, size: int) -> str:
        return f"{name}, {size:,} B"

    def costs(figure: Figure, name: str) -> list[tuple[int, float]] | None:
        found = [(size, figure(label(name, size), "cpu_per_million")) for size in VALUE_SIZES]
        return found if all(cost for _, cost in found) else None

    def slopes(figure: Figure) -> float | None:
        service, library = costs(figure, INLET), costs(figure, "raw")
        return slope(service) / slope(library) if service and library else None

    def bend(figure: Figure) -> float | None:
        service = costs(figure, INLET)
        return worst_off_line(service) if service else None

    series = [
        one
        for size in VALUE_SIZES
        for one in (
            Series(label("raw", size), "raw", Raw("record", outstanding=64, value_bytes=size)),
            Series(label(INLET, size), INLET, Wrk(64, value_bytes=size)),
        )
    ]
    goals = [
        Goal(f"{INLET}: CPU a byte (slope) ÷ raw's", 1.3, slopes),
        Goal(f"{INLET}: worst factor between CPU and the line through its ends", 1.2, bend),
    ]
    return Case("value-size", "Cost against the size of the value, 64 connections", series, goals)


def round_trips(count: int) -> Case:
    def label(milliseconds: float) -> str:
        return f"{INLET}, {milliseconds:g} ms"

    def reached(milliseconds: float) -> Callable[[Figure], float | None]:
        def value(figure: Figure) -> float | None:
            near, p50 = figure(label(0), "requests_per_second"), figure(label(0), "p50_ms")
            far = figure(label(milliseconds), "requests_per_second")
            if not (near and p50 and far):
                return None
            return far / min(near, count / ((milliseconds + p50) / 1e3))

        return value

    series = [
        Series(label(milliseconds), INLET, Wrk(count), milliseconds) for milliseconds in (0, *ROUND_TRIPS)
    ]
    goals = [
        Goal(f"{INLET}: requests/s at {r:g} ms ÷ what {r:g} ms allow", 0.8, reached(r), at_most=False)
        for r in ROUND_TRIPS
    ]
    title = f"Round-trip time to the broker, {count:,} connections"
    return Case(f"round-trip-{count}", title, series, goals, label(0))


METRICS = {
    "cpu": ("cpu_per_million", "CPU"),
    "requests": ("requests_per_second", "requests/s"),
    "records": ("records_per_second", "records/s"),
    "p50": ("p50_ms", "p50"),
    "p99": ("p99_ms", "p99"),
}


def at_most(metric: str, bound: float, subject: str, reference: str) -> Goal:
    key, name = METRICS[metric]
    return Goal(
        f"{subject}: {name} ÷ {reference}",
        bound,
        lambda figure: ratio(figure(subject, key), figure(reference, key)),
    )


def at_least(metric: str, bound: float, subject: str, reference: str) -> Goal:
    goal = at_most(metric, bound, subject, reference)
    return Goal(goal.text, bound, goal.value, at_most=False)


def at_most_sum(bound: float, series: list[Series]) -> Goal:
    """The last series against the sum of those before it."""
    *parts, subject = [one.label for one in series]

    def value(figure: Figure) -> float | None:
        costs = [figure(part, "cpu_per_million") for part in parts]
        return ratio(figure(subject, "cpu_per_million"), sum(costs)) if all(costs) else None

    return Goal(f"{subject}: CPU ÷ ({' + '.join(parts)})", bound, value)


def peak(subject: str) -> Goal:
    return Goal(
        f"{subject}: peak of resident memory", 40, lambda figure: figure(subject, "peak_mb"), unit=" MB"
    )


def ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def slope(points: list[tuple[int, float]]) -> float:
    """Of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def worst_off_line(points: list[tuple[int, float]]) -> float:
    (first_x, first_y), (last_x, last_y) = points[0], points[-1]
    factors = [1.0]
    for x, y in points[1:-1]:
        expected = first_y + (last_y - first_y) * (x - first_x) / (last_x - first_x)
        factors += [y / expected, expected / y]
    return max(factors)
