"""`{benchmarks} chapter`: what was measured against peers, as tables.

The numbers are read from `tests/benchmarks/results/<chapter>-*.json`, which
`make bench` writes. A page cannot say more than those files: nothing is typed
by hand, and code that has changed since a run is named beside its numbers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from blocks import BlockDirective, BlockError, Text
from docutils import nodes
from sphinx.application import Sphinx

RESULTS = Path("tests", "benchmarks", "results")


class Benchmarks(BlockDirective):
    """The comparisons of one chapter."""

    kind = "benchmarks"
    has_content = False
    required_arguments = 1

    def build(self) -> list[nodes.Node]:
        """Title, table and verdict of each comparison."""
        root = Path(self.env.srcdir)
        files = sorted((root / RESULTS).glob(f"{self.arguments[0]}-*.json"))
        if not files:
            raise BlockError(
                f"no {RESULTS.as_posix()}/{self.arguments[0]}-*.json. Run "
                "`make bench`, or take the directive out."
            )
        found = nodes.container(classes=["benchmarks"])
        for path in files:
            self.env.note_dependency(str(path))
            report = json.loads(path.read_text(encoding="utf-8"))
            self.parse(Text(as_markdown(report, root), self.lineno + 1), found)
        return [found]


def as_markdown(report: dict, root: Path) -> str:
    """One comparison in MyST."""
    return "\n\n".join(
        [
            f"**{report['title']}.** {report['what']}",
            _table(report),
            f"{verdict(report)} {provenance(report, root)}",
        ]
    )


def _table(report: dict) -> str:
    """The ratios come first: on a phone they are what one sees."""
    ours, cases = report["ours"], report["cases"]
    peers = list({p: 0 for row in cases.values() for p in row if p != ours})
    head = ["case", *(f"{ours} / {peer}" for peer in peers)]
    head += [f"{ours}, {report['unit']}", *peers]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for case, row in cases.items():
        ratios = [_ratio(report, row.get(peer)) for peer in peers]
        values = [_number(row.get(name)) for name in (ours, *peers)]
        lines.append([case, *ratios, *values])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ratio(report: dict, entry: dict | None) -> str:
    if entry is None:
        return "–"
    text = f"{entry['ratio']:.2f}"
    return f"**{text}**, over" if _over(report, entry) else text


def _over(report: dict, entry: dict) -> bool:
    return report["goal"] is not None and entry["ratio"] > report["goal"]


def _number(entry: dict | None) -> str:
    if entry is None:
        return "–"
    value = entry["value"]
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(report: dict) -> str:
    """Whether the goal is met, and if it is not, why."""
    if report["goal"] is None:
        return "No goal: it shows what something costs."
    marks = [
        _over(report, entry)
        for row in report["cases"].values()
        for name, entry in row.items()
        if name != report["ours"]
    ]
    goal = f"Goal: at most {report['goal']:.2f} times each peer."
    if not any(marks):
        return f"{goal} Met in all {len(marks)}."
    return (
        f"{goal} **Missed in {sum(marks)} of {len(marks)}.** {report['missed']}"
    )


def provenance(report: dict, root: Path) -> str:
    """When and where it was measured, and what has changed since."""
    on, threads = report["machine"], report["machine"]["threads"]
    words = (
        f"Measured on {report['date']}: {on['cpu']}, {threads} "
        f"thread{'s' * (threads != 1)}, torch {on['torch']}, "
        f"Python {on['python']}."
    )
    changed = [
        f"`{name}`"
        for name, digest in report["sources"].items()
        if _digest(root / "src" / f"{name.replace('.', '/')}.py") != digest
    ]
    if changed:
        words += f" Changed since then: {', '.join(changed)}."
    return f"*{words}*"


def _digest(path: Path) -> str | None:
    """As `digests` of the harness writes it."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("benchmarks", Benchmarks)
    return {"version": "1", "parallel_read_safe": True}
