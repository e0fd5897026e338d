"""Do published numbers and standard errors get into the ledger, once and whole?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ledger_plans import by_kind, finish, make_plan, metric, outcome, result, submission

from sweepctl.errors import LedgerError
from sweepctl.ledger import VIEWS, Ledger, open_ledger
from sweepctl.paper import reference_edition, reference_points, reference_rows


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    with open_ledger(database) as opened:
        yield opened


def published(value: float, number: int = 1) -> dict[str, Any]:
    """A row of `v_reference` with only what every row has."""
    row: dict[str, Any] = dict.fromkeys(VIEWS["v_reference"][1])
    facts = {"id": number, "source": "paper", "place": "Table 1", "name": "psnr"}
    return row | facts | {"protocol": "paper", "value": value, "E": 4096}


def test_published_numbers_are_written_once_an_edition(ledger: Ledger) -> None:
    assert ledger.fits.keep_reference("one", lambda: [published(30.0), published(31.0, 2)]) == 2
    asked: list[str] = []

    def points() -> list[dict[str, Any]]:
        asked.append("read")
        return [published(32.0)]

    assert ledger.fits.keep_reference("one", points) == 0 and not asked
    assert ledger.fits.keep_reference("two", points) == 1
    table = ledger.query("SELECT id, name, E, value, p FROM v_reference")
    assert table.rows == ((1, "psnr", 4096, 32.0, None),)


def test_the_view_holds_the_numbers_of_the_package(ledger: Ledger) -> None:
    assert ledger.fits.keep_reference(reference_edition(), reference_rows) == 900
    columns = ", ".join(VIEWS["v_reference"][1])
    table = ledger.query(f"SELECT {columns} FROM v_reference ORDER BY id")
    assert [dict(zip(table.columns, row, strict=True)) for row in table.rows] == sorted(
        reference_rows(), key=lambda row: row["id"]
    )
    best = ledger.query(
        "SELECT E, min(value) FROM v_reference WHERE figure = '3' AND name = 'rfid' "
        "AND dataset LIKE 'ImageNet%' GROUP BY E ORDER BY E"
    )
    points = reference_points("3")
    mine = points[(points["metric"] == "rfid") & points["dataset"].str.startswith("ImageNet")]
    expected = mine.groupby("E")["value"].min()
    assert dict(best.rows) == expected.to_dict()


def test_a_standard_error_goes_from_the_result_to_views_and_fits(ledger: Ledger) -> None:
    plan = make_plan(axes=[{"p": 8}])
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "reconstruct")[0]
    finish(ledger, task, metric(20.0, se=0.25), metric(9.0, "fid"))
    assert ledger.query("SELECT name, se FROM v_metric ORDER BY name").rows == (
        ("fid", None),
        ("psnr", 0.25),
    )
    frame = ledger.cells.frame("small").set_index("metric")
    assert frame["se"]["psnr"] == 0.25 and frame["encoder_macs"]["psnr"] == 4 * 10**8


def test_an_impossible_standard_error_is_refused(ledger: Ledger) -> None:
    plan = make_plan(axes=[{"p": 8}])
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "reconstruct")[0]
    ledger.attempts.start(task.fingerprint)
    for se in (-0.1, float("nan"), float("inf")):
        with pytest.raises(LedgerError, match="impossible standard error: psnr"):
            ledger.attempts.finish(outcome(task), result(task, metric(20.0, se=se)))
