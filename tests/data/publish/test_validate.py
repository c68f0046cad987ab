import pytest

from longvale.data.publish.validate import other_length


@pytest.mark.parametrize(
    ("lasts", "annotated", "named"),
    [
        (30.4, 30.5, False),
        (30.0, 30.6, True),  # more than half a second
        (70.0, 70.6, False),
        (70.8, 70.0, True),  # more than 1%
        (299.1, 300.0, False),
        (298.9, 300.0, True),  # more than a second
    ],
)
def test_lengths_that_differ_by_more_than_a_hundredth_or_a_second_are_named(lasts, annotated, named):
    message = other_length("abc", lasts, annotated)
    assert (message is not None) == named
    assert not named or message.startswith(f"abc: the file lasts {lasts:.1f} s, its annotation {annotated:.1f} s")
