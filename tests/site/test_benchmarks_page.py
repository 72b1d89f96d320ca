"""The page of benchmarks says what the kept files say, and no more."""

import json
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Timing
from tiny_site import ROOT, Site

RESULTS = sorted((ROOT / "tests" / "benchmarks" / "results").glob("*.json"))


def timing(ms, ratio):
    return Timing(ms, ratio, ratio, ratio, 3)


CASES = {
    "short": {"torch": timing(2.0, 1.0), "ours": timing(1.0, 0.5)},
    "long": {"torch": timing(1000.0, 1.0), "ours": timing(1100.0, 1.125)},
}


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """`publish` of a small project with one module and one benchmark."""
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "HERE", tmp_path / "tests" / "benchmarks")
    results = tmp_path / "tests" / "benchmarks" / "results"
    monkeypatch.setattr(harness, "RESULTS", results)
    package = tmp_path / "src" / "litformer"
    package.mkdir(parents=True)
    (package / "blocks.py").write_text("from litformer.norm import x\n")
    (package / "norm.py").write_text("x = 1\n")
    (package / "other.py").write_text("y = 1\n")
    results.mkdir(parents=True)
    bench = results.parent / "bench_block.py"
    bench.write_text("from litformer.blocks import Block\n")
    words = {"title": "The block", "what": "Forward.", "missed": "It waits."}

    def call(**options):
        options = {**words, "cases": CASES, **options}
        return harness.publish("block", "train", **options)

    call.root = tmp_path
    return call


def page(publish):
    """The text of a page with the comparison, as a reader sees it."""
    site = Site(publish.root / "site")
    for name in ("tests", "src"):
        (site.root / name).symlink_to(publish.root / name)
    conf = site.root / "conf.py"
    conf.write_text(conf.read_text().replace('"book"]', '"book", "tests"]'))
    site.page("chapters/alpha", "```{benchmarks} block\n```\n")
    assert site.build() == []
    return site.html("chapters/alpha")


def test_a_comparison_is_kept_with_machine_and_sources(publish, capsys):
    report = json.loads(publish().read_text())
    assert report["cases"]["long"]["ours"] == {"value": 1100.0, "ratio": 1.0}
    assert report["cases"]["long"]["torch"]["ratio"] == 1.125
    assert set(report["sources"]) == {"litformer.blocks", "litformer.norm"}
    assert report["machine"]["threads"] >= 1
    assert report["missed"] == "It waits."
    assert "short" in capsys.readouterr().out


def test_ratios_of_two_peers_come_from_the_same_rounds(publish):
    row = {
        "torch": timing(2.0, 1.0),
        "x": timing(9.0, 2.0),
        "ours": timing(7.0, 0.5),
    }
    report = json.loads(publish(cases={"a": row}).read_text())
    ratios = {n: e["ratio"] for n, e in report["cases"]["a"].items()}
    assert ratios == {"torch": 0.5, "x": 0.25, "ours": 1.0}
    assert report["missed"] == ""  # a reason without a miss is not kept


def test_a_missed_goal_needs_a_reason(publish):
    message = "over the goal of 1.05: long against torch: 1.1"
    with pytest.raises(ValueError, match=message):
        publish(missed="")
    assert not list(harness.RESULTS.glob("*"))


@pytest.mark.parametrize("row", [{"ours": 1.0}, {"torch": 1.0}, {}])
def test_a_case_needs_us_and_a_peer(publish, row):
    with pytest.raises(ValueError, match="'a' needs 'ours' and a peer, got"):
        publish(cases={"a": row})


def test_the_page_shows_values_ratios_and_verdict(publish):
    publish()
    found = page(publish)
    rows = [
        [cell.text for cell in row.select("td")]
        for row in found.select("tbody tr")
    ]
    assert rows == [
        ["short", "0.50", "1", "2"],
        ["long", "1.12, over", "1,100", "1,000"],
    ]
    text = found.text
    assert (
        "Goal: at most 1.05 times each peer. Missed in 1 of 2. It waits."
        in (text)
    )
    assert "Changed since" not in text


def test_a_peer_may_be_missing_in_a_case(publish):
    row = {"x": timing(2.0, 1.0), "ours": timing(1.0, 0.5)}
    publish(cases={**CASES, "odd": row})
    found = page(publish)
    head = [cell.text for cell in found.select("thead th")]
    assert head == [
        *("case", "ours / torch", "ours / x"),
        *("ours, CPU ms", "torch", "x"),
    ]
    last = [c.text for c in found.select("tbody tr:last-child td")]
    assert last == ["odd", "–", "0.50", "1", "–", "2"]


def test_the_page_says_that_a_goal_is_met(publish):
    publish(cases={"short": CASES["short"]})
    assert "Met in all 1." in page(publish).text


def test_a_comparison_may_have_no_goal(publish):
    publish(goal=None, unit="MiB", cases={"a": {"torch": 1.0, "ours": 9.0}})
    text = page(publish).text
    assert "ours, MiB" in text
    assert "No goal: it shows what something costs." in text


def test_code_that_changed_since_is_named(publish):
    publish()
    (publish.root / "src" / "litformer" / "norm.py").write_text("x = 2\n")
    assert "Changed since then: litformer.norm." in page(publish).text


def test_a_page_without_results_says_how_to_get_them(tmp_path):
    site = Site(tmp_path)
    site.page("chapters/alpha", "```{benchmarks} block\n```\n")
    (warning,) = site.build()
    assert "benchmarks: no tests/benchmarks/results/block-*.json" in warning
    assert "Run `make bench`, or take the directive out." in warning


def test_every_kept_result_is_on_the_page():
    page = (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
    shown = {
        line.split("} ")[1].strip()
        for line in page.splitlines()
        if line.startswith("```{benchmarks}")
    }
    kept = {json.loads(p.read_text("utf-8"))["chapter"] for p in RESULTS}
    assert shown == kept


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_kept_results_are_whole(path: Path):
    report = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem.startswith(f"{report['chapter']}-")
    bench = ROOT / "tests" / "benchmarks" / f"bench_{report['chapter']}.py"
    assert bench.is_file()
    assert report["sources"], "the benchmark runs nothing of ours"
    goal = report["goal"]
    over = goal is not None and any(
        entry["ratio"] > goal
        for row in report["cases"].values()
        for name, entry in row.items()
        if name != report["ours"]
    )
    assert bool(report["missed"]) == over
