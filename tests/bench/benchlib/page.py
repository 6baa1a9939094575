# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as one page of HTML with plots, which needs nothing else."""

import html
import math

WIDTH, HEIGHT, MARGIN = 640, 200, 44
COLOURS = {"managed": "#1a7f37", "local": "#0969da",
           "memfd": "#cf222e", "private": "#8250df"}
STYLE = """
body { font: 15px sans-serif; max-width: 60em; margin: 2em auto; color: #222 }
table { border-collapse: collapse }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child, td:last-child { text-align: left }
.good { color: #1a7f37 } .bad { color: #cf222e }
svg { display: block; margin: .5em 0 1.5em } text { font: 12px sans-serif }
"""


def _met(entry):
    """Whether an entry with a goal has reached it; None without one."""
    goal = entry["goal"]
    if not goal:
        return None
    value = entry["ratio"] if goal.startswith("ratio") else entry["managed"]
    limit = float(goal.split()[-1])
    return value >= limit if ">=" in goal else value <= limit


def _row(entry):
    def number(value, digits):
        return "" if value is None else f"{value:.{digits}f}"
    low, high = entry["spread"]
    mark = {None: "", True: " class=good", False: " class=bad"}[_met(entry)]
    return (f"<tr><td>{html.escape(entry['id'])}<td>"
            f"{number(entry['managed'], 2)}<td>{number(entry['baseline'], 2)}"
            f"<td>{html.escape(entry['unit'])}<td{mark}>"
            f"{number(entry['ratio'], 3)}<td>{low:.2f} to {high:.2f}"
            f"<td>{html.escape(entry['goal'] or '')}")


def _nice(value):
    """A round number that is not smaller."""
    power = 10 ** math.floor(math.log10(value or 1))
    return next(step * power for step in (1, 2, 5, 10)
                if step * power >= value)


def _line(values, top, colour, label, place):
    step = (WIDTH - 2 * MARGIN) / max(len(values) - 1, 1)
    points = " ".join(
        f"{MARGIN + i * step:.1f},"
        f"{HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN):.1f}"
        for i, value in enumerate(values))
    return (f'<polyline points="{points}" fill="none" stroke="{colour}" '
            f'stroke-width="1.5"/><text x="{MARGIN + 90 * place}" y="16" '
            f'fill="{colour}">{label}</text>')


def _diagram(lines, scale, unit, marks):
    """lines: {side: values}; scale: of these; marks: (share of width, text)"""
    top = _nice(max(max(values) for values in lines.values()))
    bottom = HEIGHT - MARGIN
    parts = [f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">',
             f'<path d="M{MARGIN} {MARGIN}V{bottom}H{WIDTH - MARGIN}" '
             'stroke="#888" fill="none"/>',
             f'<text x="2" y="{MARGIN + 4}">{top * scale:g}{unit}</text>',
             f'<text x="2" y="{bottom}">0</text>']
    parts += [f'<text x="{MARGIN + share * (WIDTH - 2 * MARGIN):.0f}" '
              f'y="{bottom + 16}">{text}</text>' for share, text in marks]
    parts += [_line(values, top, COLOURS[side], side, place)
              for place, (side, values) in enumerate(lines.items())]
    return "".join(parts) + "</svg>"


def _plot(lines, step_s):
    """lines: {side: accesses per step}"""
    end = step_s * max(len(values) for values in lines.values())
    return _diagram(lines, 1 / step_s, "/s", [(1, f"{end:.0f} s")])


def _curve(name, places, lines):
    """lines: {side: a value for each place}"""
    last = max(len(places) - 1, 1)
    marks = [(number / last, place) for number, place in enumerate(places)]
    return f"<h2>{html.escape(name)}</h2>" + _diagram(lines, 1, "", marks)


def _timelines(medium, runs):
    """One plot for each pattern, of the first run of each side."""
    parts = [f"<h2>{html.escape(medium)}: accesses over time, first run</h2>"]
    for name, timeline in runs["managed"][0].timelines.items():
        if timeline:
            lines = {side: of_side[0].timelines[name]
                     for side, of_side in runs.items()}
            parts += [f"<h3>{html.escape(name)}</h3>", _plot(lines, 0.1)]
    return "\n".join(parts)


def write(path, entries, kept, curves):
    """entries: of the report

    kept: {medium: {side: [Run]}}; curves: {name: (places, {side: values})}
    """
    path.write_text("\n".join([
        "<!doctype html><meta charset=utf-8><title>Managed memory: benchmarks"
        f"</title><style>{STYLE}</style><h1>Managed memory: benchmarks</h1>",
        "<p>Medians; a ratio above 1 means that managed memory is better. The "
        "spread is that of the pairs' ratios.",
        "<table><tr><th>id<th>managed<th>baseline<th>unit<th>ratio<th>spread"
        "<th>goal", *map(_row, entries), "</table>",
        *(_curve(name, *curve) for name, curve in curves.items()),
        *(_timelines(medium, runs) for medium, runs in kept.items())]))
