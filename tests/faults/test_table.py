from __future__ import annotations

import pytest
from faults import table


@pytest.mark.parametrize("row", [row for rows in table.ROWS.values() for row in rows])
def test_every_row_has_a_test(row):
    assert table.tests().get(row), f"F{row} has no test"


def test_the_rows_are_complete():
    assert [row for rows in table.ROWS.values() for row in rows] == [*range(1, 80), *range(108, 113)]


def test_the_table_is_up_to_date():
    assert table.README.read_text() == table.render(), "run: python tests/faults/table.py"
