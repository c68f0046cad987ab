"""Lines and groups of bars, readable in black and white."""

import pytest
from matplotlib.figure import Figure

from longvale.plotting.charts import draw_bars, line_figure
from longvale.plotting.style import LINE_STYLES


@pytest.mark.parametrize("sideways", [False, True])
def test_bars_of_a_group_are_side_by_side_and_differ_without_colour(sideways):
    axes = Figure().subplots()
    draw_bars(axes, [[1, 2], [3, 4], [5, 6]], ["first", "second"], sideways=sideways)
    along = axes.yaxis if sideways else axes.xaxis
    assert [label.get_text() for label in along.get_ticklabels()] == ["first", "second"]
    assert along.get_inverted() == sideways  # the first name is at the top
    lengths = [[bar.get_width() if sideways else bar.get_height() for bar in bars] for bars in axes.containers]
    assert lengths == [[1, 2], [3, 4], [5, 6]]
    starts = [bars[0].get_y() if sideways else bars[0].get_x() for bars in axes.containers]
    assert starts == pytest.approx([-0.4, -0.4 + 0.8 / 3, -0.4 + 1.6 / 3])
    assert len({bars[0].get_hatch() for bars in axes.containers}) == 3


def test_lines_differ_without_colour_and_names_are_no_formulas():
    (axes,) = line_figure([(f"${n}$", [0, 1], [n, n]) for n in range(4)], x="step", y="loss", title="A").axes
    assert len({line.get_linestyle() for line in axes.lines}) == len(LINE_STYLES) == 4
    texts = axes.get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["$0$", "$1$", "$2$", "$3$"]
    assert not any(text.get_parse_math() for text in texts)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("step", "loss", "A")
