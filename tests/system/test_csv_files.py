"""CSV that a spreadsheet opens as text, and that thaw reads back as it was."""

from __future__ import annotations

import io

import pytest

from thaw.system.csv_files import format_rows, read_rows

FORMULAS = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1", "\r=1", "-", "=", "- 5", "'=1", "''@x", "=a\nb"]
PLAIN = ["ant", "", "'quoted'", "a=b", " =1", 'größe, "x"', "a\r\nb", "caf\udce9"]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_compute_gets_an_apostrophe(text: str) -> None:
    ((cell, number),) = [row.values() for row in read_as_spreadsheet(format_rows([["a", "b"], [text, -0.5]]))]
    assert (cell, number) == (f"'{text}", "-0.5")


@pytest.mark.parametrize("text", [*PLAIN, "-0.5", "+3", "-1e-3", "-inf"])
def test_other_text_and_numbers_stay(text: str) -> None:
    ((cell,),) = [row.values() for row in read_as_spreadsheet(format_rows([["a"], [text or "x"]]))]
    assert cell == (text or "x")


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN])
def test_rows_are_read_as_they_were(text: str) -> None:
    assert read_rows(io.StringIO(format_rows([[text, "b"], [text, text]]), newline="")) == [{text: text, "b": text}]


def test_a_file_without_rows_is_empty() -> None:
    assert read_rows(io.StringIO("")) == []
    assert read_rows(io.StringIO("a,b\n")) == []


def read_as_spreadsheet(text: str) -> list[dict[str, str]]:
    import csv

    return list(csv.DictReader(io.StringIO(text, newline="")))
