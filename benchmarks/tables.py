"""The tables of the pages, held to the results that they come from.

A comment before a table (or a list) of a page names where its figures come from: a file of results,
which is shown as its benchmark reports it, or a command, for what is not kept.

    <!-- benchmarks/results/accuracy-pbmc68k.json -->
    <!-- benchmarks/results/models-cpu-fp32.json: inference; inference, fused -->
    <!-- python examples/model_sizes.py -->

A page may leave out columns of a report. To leave out rows it names, behind a colon, what the
others begin with.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import (
    attention,
    degraded,
    growth,
    images,
    large_graphs,
    loader,
    models,
    ops,
    sag_vit,
    seeds,
    serving,
    small_graphs,
    trainings,
)
from benchmarks.timing import saved

PAGES = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<source>.+) -->\n)?(?P<lines>(?:\|.*\n)+|(?:- .*\n)+)", re.MULTILINE
)
"""A table or a list, and the comment on the line before it."""

REPORTS: dict[str, Callable[[list[dict[str, Any]]], list[str]]] = {
    "*-fashion-mnist": seeds.report,
    "accuracy-*-degraded": partial(degraded.report, title="aggregation", metric="auroc"),
    "accuracy-*": partial(trainings.report, title="aggregation"),
    "attention-*": attention.report,
    "dense-*": partial(trainings.report, title="backbone"),
    "growth-*": growth.report,
    **{f"image-{study}": partial(images.report, study=study) for study in images.TITLES},
    "large-graphs-*": large_graphs.report,
    "layer-*": ops.report,
    "loader": loader.report,
    "models-*": models.report,
    "ops-*": ops.report,
    "sag-vit-*": sag_vit.report,
    "serving-*": serving.report,
    "small-graphs-*": small_graphs.report,
}
"""How results are reported, by the pattern of their name; the first that fits."""


def renewed(block: re.Match[str]) -> str:
    """What a block of a page should say, by the results that its comment names.

    Raises:
        ValueError: If there are no such results, or a report of them has no such columns.
    """
    found = re.fullmatch(r"benchmarks/results/([\w-]+)\.json(?:: (.+))?", block["source"] or "")
    if found is None:
        return block[0]
    name, kept = found[1], found[2] and found[2].split("; ")
    rows = saved(name)
    report = next((r for pattern, r in REPORTS.items() if fnmatch(name, pattern)), None)
    if not rows or report is None:
        raise ValueError(f"expected results and a report of them (got {name!r})")
    lines = report(rows)
    if block["lines"].startswith("- "):
        now = [line for line in lines if line.startswith("- ")]
    else:
        table = [_cells(line) for line in lines if line.startswith("|")]
        titles = _cells(block["lines"].splitlines()[0])
        if unknown := [title for title in titles if title not in table[0]]:
            raise ValueError(f"{name}: expected columns among {table[0]} (got {unknown})")
        columns = [table[0].index(title) for title in titles]
        rows_kept = [cells for cells in table[2:] if kept is None or cells[0] in kept]
        now = [_line([cells[c] for c in columns]) for cells in [*table[:2], *rows_kept]]
    return "\n".join([f"<!-- {block['source']} -->", *now, ""])


def has_figures(block: re.Match[str]) -> bool:
    """Whether it is a table with a cell that is a number; code is none."""
    rows = [_cells(line) for line in block["lines"].splitlines() if line.startswith("|")]
    return any(re.match(r"[-+]?\d", cell) for cells in rows[2:] for cell in cells)


def tables() -> list[str]:
    """Write the tables of all pages anew, from the results; the pages that changed."""
    changed = []
    for page in PAGES:
        old = page.read_text()
        new = BLOCK.sub(renewed, old)
        if new != old:
            page.write_text(new)
            changed.append(str(page))
    return changed


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _line(cells: list[str]) -> str:
    if set(cells) == {"---"}:
        return "|---" * len(cells) + "|"
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
