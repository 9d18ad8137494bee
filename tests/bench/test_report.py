"""Figures of several rounds become judged rows and a table between markers."""

from pathlib import Path

from bench import report
from bench.cases import Case, Goal


def a_case(*goals: Goal) -> Case:
    return Case("name", "title", lambda context: {}, goals)


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    case = a_case(Goal("throughput", at_least=1.6))
    pairs: list[report.Pair] = [
        ({"throughput": 10.0}, {"throughput": 10.0}),
        ({"throughput": 10.0}, {"throughput": 20.0}),
        ({"throughput": 1.0}, {"throughput": 9.0}),
    ]
    (row,) = report.rows(case, pairs)
    assert (row.ratio, row.ratio_min, row.ratio_max, row.passed) == (2.0, 1.0, 9.0, True)


def test_own_goal_judges_the_candidate_alone() -> None:
    case = a_case(Goal("bytes", at_most=1000, own=True))
    (row,) = report.rows(case, [({"bytes": 1.0}, {"bytes": 999.0})])
    assert row.passed


def test_figure_of_the_first_round_only_counts_once() -> None:
    case = a_case(Goal("loaded", at_most=0.6))
    (row,) = report.rows(case, [({"loaded": 2.0}, {"loaded": 1.0}), ({}, {})])
    assert row.pairs == 1


def test_table_is_replaced_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(document, "new")
    assert f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n" == document.read_text()


def test_document_without_markers_gets_them(tmp_path: Path) -> None:
    document = tmp_path / "docs" / "performance.md"
    report.write(document, "new")
    report.write(document, "newer")
    assert f"# Performance\n\n{report.BEGIN}\nnewer\n{report.END}\n" == document.read_text()
