"""The plot: every goal as reached over to reach, and the CPU a record of every series, as SVG."""

import math
from html import escape

from .cases import Case
from .report import Results

WIDTH, LABELS, ROW, GAP = 1100, 520, 18, 14
BARS = WIDTH - LABELS - 110
GREEN, RED, GREY, BLUE = "#2e8b57", "#c0392b", "#9aa5b1", "#2c6fbb"


class Scale:
    """Logarithmic, over whole halves of a decade."""

    def __init__(self, values: list[float]):
        self.low = math.floor(2 * math.log10(min(values))) / 2
        self.high = math.ceil(2 * math.log10(max(values))) / 2 + 0.01

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return LABELS + BARS * min(1, max(0, share))


class Drawing:
    def __init__(self):
        self.parts: list[str] = []
        self.y = 10

    def text(self, x: float, content: str, anchor: str = "start", weight: str = "normal"):
        position = f'x="{x:.1f}" y="{self.y + 13}" text-anchor="{anchor}" font-weight="{weight}"'
        self.parts.append(f"<text {position}>{escape(content)}</text>")

    def bar(self, start: float, end: float, colour: str, height: int = ROW - 6, inset: int = 3):
        left, width = min(start, end), max(1.0, abs(end - start))
        position = f'x="{left:.1f}" y="{self.y + inset}" width="{width:.1f}" height="{height}"'
        self.parts.append(f'<rect {position} fill="{colour}"/>')

    def rule(self, x: float, top: int):
        position = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{self.y}"'
        self.parts.append(f'<line {position} stroke="#333" stroke-dasharray="3 3"/>')

    def heading(self, content: str):
        self.y += GAP
        self.text(10, content, weight="bold")
        self.y += ROW + 4

    def svg(self) -> str:
        height = self.y + 20
        size = f'width="{WIDTH}" height="{height}"'
        frame = f'xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {height}"'
        style = 'font-family="sans-serif" font-size="12" fill="#222"'
        background = f'<rect {size} fill="#fff"/>'
        return f"<svg {frame} {style}>\n{background}\n" + "\n".join(self.parts) + "\n</svg>\n"


def svg(results: Results, cases: list[Case]) -> str:
    drawing = Drawing()
    draw_goals(drawing, results, cases)
    draw_costs(drawing, results, cases)
    return drawing.svg()


def draw_goals(drawing: Drawing, results: Results, cases: list[Case]):
    """Bars that end left of the line are met: a goal of "at least" is turned round."""
    rows = []
    for reached in (results.reached(case, goal) for case in cases for goal in case.goals):
        if reached.median:
            share = reached.median / reached.goal.bound
            rows.append((reached, share if reached.goal.at_most else 1 / share))
    if not rows:
        return
    drawing.heading("Goals: reached ÷ to reach (left of the line is met)")
    scale = Scale([1.0, *(share for _, share in rows)])
    top = drawing.y
    for reached, share in rows:
        drawing.text(LABELS - 8, f"{reached.case.name} · {reached.goal.text}", "end")
        drawing.bar(LABELS, scale(share), GREEN if reached.is_met else RED)
        drawing.text(LABELS + BARS + 8, f"{reached.median:.2f} ({share:.2f})")
        drawing.y += ROW
    drawing.rule(scale(1.0), top)


def draw_costs(drawing: Drawing, results: Results, cases: list[Case]):
    costs = {
        (case.name, one.label): results.median(case, one.label, "cpu_per_million")
        for case in cases
        for one in case.series
    }
    known = [cost for cost in costs.values() if cost]
    if not known:
        return
    scale = Scale(known)
    drawing.heading("CPU-seconds per million records (logarithmic; compare within a case only)")
    for case in cases:
        rows = [(one, costs[case.name, one.label]) for one in case.series if costs[case.name, one.label]]
        if not rows:
            continue
        drawing.text(LABELS - 8, case.title, "end", "bold")
        drawing.y += ROW
        for one, cost in rows:
            drawing.text(LABELS - 8, one.label, "end")
            drawing.bar(LABELS, scale(cost), BLUE if one.system.startswith("kafka-inlet") else GREY)
            drawing.text(scale(cost) + 6, f"{cost:.2f}")
            drawing.y += ROW
        drawing.y += 6
