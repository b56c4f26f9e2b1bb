"""Results as JSON lines and as a Markdown table."""

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from .cases import Case, Figure, Goal

# header, figure, decimals, with its ratio to the reference
COLUMNS = [
    ("requests/s", "requests_per_second", 0, True),
    ("records/s", "records_per_second", 0, True),
    ("CPU-s/M", "cpu_per_million", 2, True),
    ("p50 ms", "p50_ms", 2, True),
    ("p99 ms", "p99_ms", 2, True),
    ("p99.9 ms", "p999_ms", 2, False),
    ("p50 from the send", "from_send_p50_ms", 2, True),
    ("broker CPU-s/M", "broker_cpu_per_million", 1, False),
    ("idle MB", "idle_mb", 1, False),
    ("peak MB", "peak_mb", 1, False),
    ("start ms", "start_ms", 0, False),
    ("MB above idle, Kafka away", "away_mb", 1, False),
    ("MB above idle, replay", "replay_mb", 1, False),
]
FAILURES = ("refused", "broken", "timeouts")


@dataclass(frozen=True)
class Reached:
    """A goal's value in each round, and their median."""

    case: Case
    goal: Goal
    values: list[float]

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def is_met(self) -> bool | None:
        return None if self.median is None else self.goal.is_met(self.median)


class Results:
    """All measurements of a run, kept in memory and appended to a file as they come."""

    def __init__(self, file: Path):
        self.file = file
        self.machine: dict = {}
        self.lines: list[dict] = []
        if file.exists():
            for line in map(json.loads, file.read_text().splitlines()):
                self.keep(line)

    def add(self, line: dict):
        with open(self.file, "a") as output:
            output.write(json.dumps(line) + "\n")
        self.keep(line)

    def keep(self, line: dict):
        if line["kind"] == "machine":
            self.machine = line
        else:
            self.lines.append(line)

    def of(self, case: Case, label: str) -> list[dict]:
        return [line for line in self.lines if line["case"] == case.name and line["label"] == label]

    def median(self, case: Case, label: str, figure: str) -> float | None:
        values = [line[figure] for line in self.of(case, label) if line.get(figure) is not None]
        return statistics.median(values) if values else None

    def total(self, case: Case, label: str, figure: str) -> int | None:
        values = [line[figure] for line in self.of(case, label) if line.get(figure) is not None]
        return sum(values) if values else None

    def reached(self, case: Case, goal: Goal) -> Reached:
        rounds: dict[int, dict] = defaultdict(dict)
        for line in self.lines:
            if line["case"] == case.name:
                rounds[line["round"]][line["label"]] = line
        values = [goal.value(lookup(by_label)) for by_label in rounds.values()]
        return Reached(case, goal, [value for value in values if value is not None])

    def lost(self) -> list[dict]:
        return [line for line in self.lines if line.get("lost")]

    def harmed(self) -> list[dict]:
        """Measurements with a neighbour that the good client has suffered from."""
        return [line for line in self.lines if line.get("faults")]


def lookup(by_label: dict[str, dict]) -> Figure:
    """The figures of one round."""
    return lambda label, figure: by_label.get(label, {}).get(figure)


def markdown(results: Results, cases: list[Case]) -> str:
    measured = [case for case in cases if any(line["case"] == case.name for line in results.lines)]
    parts = [
        "# Results",
        about(results),
        "![Goals and cost](plot.svg)",
        "## Goals",
        goals_table(results, measured),
    ]
    for case in measured:
        parts += [f"## {case.title} (`{case.name}`)", (case.table or case_table)(results, case)]
    return "\n\n".join(parts) + "\n"


def about(results: Results) -> str:
    machine = results.machine
    rounds = 1 + max((line["round"] for line in results.lines), default=-1)
    lines = [f"- {name}: {value}" for name, value in machine.items() if name != "kind"]
    lost = results.lost()
    records = sum(line["lost"] for line in lost)
    verdict = f"**{records} records were lost**" if lost else "no accepted record was lost"
    lines.append(f"- {len(results.lines)} measurements in {rounds} rounds; figures are medians; {verdict}")
    return "\n".join(lines)


def goals_table(results: Results, cases: list[Case]) -> str:
    rows = [["case", "goal", "to reach", "reached", "rounds", "met"]]
    for case in cases:
        for goal in case.goals:
            reached = results.reached(case, goal)
            bound = f"{'≤' if goal.at_most else '≥'} {goal.bound:g}{goal.unit}"
            if reached.median is None:
                rows.append([case.name, goal.text, bound, "–", "–", "not measured"])
                continue
            spread = f"{min(reached.values):.2f} to {max(reached.values):.2f}"
            met = "yes" if reached.is_met else "no"
            rows.append([case.name, goal.text, bound, f"{reached.median:.2f}{goal.unit}", spread, met])
    return table(rows)


def case_table(results: Results, case: Case) -> str:
    columns = [
        column
        for column in COLUMNS
        if any(results.median(case, one.label, column[1]) is not None for one in case.series)
    ]
    rows = [["", *(header for header, *_ in columns), "lost", "duplicates", "failed"]]
    for one in case.series:
        if not results.of(case, one.label):
            continue
        row = [one.label]
        for _, figure, decimals, with_ratio in columns:
            value = results.median(case, one.label, figure)
            reference = (
                results.median(case, case.reference, figure) if case.reference and with_ratio else None
            )
            row.append(cell(value, decimals, reference))
        failures = [results.total(case, one.label, figure) for figure in FAILURES]
        counts = [results.total(case, one.label, "lost"), results.total(case, one.label, "duplicates")]
        counts.append(sum(failures) if None not in failures else None)
        rows.append(row + ["–" if count is None else f"{count:,}" for count in counts])
    return table(rows)


def cell(value: float | None, decimals: int, reference: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:,.{decimals}f}"
    return f"{text} ({value / reference:.2f}×)" if reference else text


def table(rows: list[list[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 1)
    return "\n".join([head, rule, *body])
