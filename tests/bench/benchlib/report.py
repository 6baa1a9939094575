# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries of the report, as a table and as JSON.

An entry compares medians. Its ratio is above 1 where managed memory is
better, whether more or less of the unit is better; the spread is that of the
pairs' ratios.
"""

import json
import statistics


def compared(ident, unit, sides, goal, more_is_better=True):
    """An entry for what both sides have.

    sides: values of managed memory, and those of the baseline, in pairs
    goal: least ratio, or None
    """
    managed, baseline = sides
    ratios = [_ratio(ours, theirs, more_is_better)
              for ours, theirs in zip(managed, baseline)]
    ours, theirs = statistics.median(managed), statistics.median(baseline)
    return {"id": ident, "managed": ours, "baseline": theirs, "unit": unit,
            "ratio": _ratio(ours, theirs, more_is_better),
            "runs": len(managed), "spread": [min(ratios), max(ratios)],
            "goal": None if goal is None else f"ratio >= {goal}"}


def _ratio(ours, theirs, more_is_better):
    if not more_is_better:
        ours, theirs = theirs, ours
    return ours / theirs if theirs else float("inf")


def absolute(ident, unit, values, goal):
    """An entry for what only managed memory has."""
    return {"id": ident, "managed": statistics.median(values),
            "baseline": None, "unit": unit, "ratio": None,
            "runs": len(values), "spread": [min(values), max(values)],
            "goal": goal}


def write(path, report):
    """As JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n")


def print_table(report):
    """For people."""
    print(f"\n{'id':<26}{'managed':>13}{'baseline':>13}  {'unit':<12}"
          f"{'ratio':>8}  {'spread':<19}goal")
    for entry in report:
        baseline = ("" if entry["baseline"] is None
                    else f"{entry['baseline']:.2f}")
        ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.3f}"
        low, high = entry["spread"]
        print(f"{entry['id']:<26}{entry['managed']:>13.2f}{baseline:>13}  "
              f"{entry['unit']:<12}{ratio:>8}  "
              f"{f'{low:.3f} to {high:.3f}':<19}{entry['goal'] or ''}")
