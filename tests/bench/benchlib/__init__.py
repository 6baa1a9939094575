# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks are made of.

    report.py     entries of the report, table and JSON
    page.py       the same as a page with plots
    sides.py      the same guest on managed memory and on what one would use
                  instead
    cost.py       what managed memory costs where nothing is swapped
    pressure.py   guests that do not fit
    migrating.py  one migration, and what it gives
"""
