"""How pictures are saved."""

from xml.etree import ElementTree

import pytest

from longvale.plotting.style import save_figure


@pytest.fixture
def figure():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    return figure


def test_png_and_svg_stand_side_by_side_and_are_always_the_same(figure, tmp_path):
    for name in ("a/timeline", "b/timeline.png", "c/timeline.svg"):
        paths = save_figure(figure, tmp_path / name)
        assert [path.name for path in paths] == ["timeline.png", "timeline.svg"]
    assert paths[0].read_bytes() == (tmp_path / "a" / "timeline.png").read_bytes()
    assert paths[1].read_bytes() == (tmp_path / "a" / "timeline.svg").read_bytes()
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")


def test_a_dot_in_the_name_is_no_suffix(figure, tmp_path):
    assert [path.name for path in save_figure(figure, tmp_path / "v1.5")] == ["v1.5.png", "v1.5.svg"]
    with pytest.raises(ValueError, match="names no file"):
        save_figure(figure, "")


def characters(path):
    from matplotlib.font_manager import get_font

    return set(get_font(path).get_charmap())


def test_characters_that_the_usual_font_lacks_are_drawn_with_another(figure, tmp_path, caplog, recwarn, monkeypatch):
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    usual, other = findfont(FontProperties()), findfont("STIXGeneral")  # both come with matplotlib
    lacking = next(c for c in map(chr, sorted(characters(other) - characters(usual))) if c.isprintable())
    figure.axes[0].set_title(f"A {lacking} bell")
    save_figure(figure, tmp_path / "other")
    assert not caplog.records and not recwarn.list
    assert "STIXGeneral" in figure.axes[0].title.get_fontfamily()
    figure.axes[0].set_title("A \u4e00 bell")
    monkeypatch.setattr(fontManager, "ttflist", [])
    save_figure(figure, tmp_path / "none")
    assert "no installed font draws \u4e00" in caplog.text and not recwarn.list
