"""The templates that all reports share."""

from xml.etree import ElementTree

import jinja2
import pytest

from longvale.evaluation.reporting.page import Table, write_page

HOSTILE = "<script>\"'&{{ title }}{% raw %}</td>"
VALUES = {"title": HOSTILE, "protocol": HOSTILE, "settings": None, "ablation": None, "curves": None, "videos": ()}


def page(tmp_path, *tables):
    task = {"title": HOSTILE, "tables": tables, "counts": HOSTILE}
    text = write_page(tmp_path / "p" / "r.html", "report.html", tasks=[task], **VALUES).read_text(encoding="utf-8")
    # Without the void elements of the head, the page is well-formed XML.
    return ElementTree.fromstring("\n".join(line for line in text.splitlines() if not line.startswith(("<!", "<meta"))))


def test_no_text_is_read_as_html_or_as_a_template(tmp_path):
    root = page(tmp_path, Table(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]]))
    for path in ("head/title", "body/main/h1", "body/main/h3", ".//caption", ".//thead/tr/th", ".//tbody/tr/td"):
        assert root.find(path).text == HOSTILE, path
    assert not list(root.iter("script"))
    assert root.find("body/main/p").text == f"Protocol {HOSTILE}. All scores are multiplied by 100."


def test_cells_have_headers_and_numbers_are_aligned(tmp_path):
    named, bare = page(
        tmp_path,
        Table("named", ["", "time", "IoU", "n"], [["1", "0.0-1.0 s", "0.50", "3"]], numbers=(2,)),
        Table("", ["", ""], [["model", "m"]], numbers=(0,)),
    ).iter("table")
    assert [(cell.get("scope"), cell.get("class")) for cell in named.find("thead/tr")] == [
        ("col", None),
        ("col", "time"),
        ("col", "number"),
        ("col", None),
    ]
    cells = [(cell.tag, cell.get("scope"), cell.get("class"), cell.text) for cell in named.find("tbody/tr")]
    assert cells[0] == ("th", "row", None, "1")
    assert cells[1:3] == [("td", None, "time", "0.0-1.0 s"), ("td", None, "number", "0.50")]
    assert bare.find("caption") is None and bare.find("thead") is None
    assert [cell.tag for cell in bare.find("tbody/tr")] == ["td", "td"]


def test_a_value_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="'tasks' is undefined"):
        write_page(tmp_path / "r.html", "report.html", **VALUES)
    assert not list(tmp_path.iterdir())
