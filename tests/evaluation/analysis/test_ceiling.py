import json

import pytest

from longvale.evaluation.analysis.ceiling import measure_ceilings
from longvale.events import Annotation, Event

#: Events of 1 s to 60 s in a video of five minutes; one begins and ends on the same timecode.
TIMES = ((12.2, 1.0), (40.3, 8.4), (61.7, 20.2), (100.1, 60.3))
VIDEO = Annotation("v", 300.0, tuple(Event(start, start + length, "A bell.") for start, length in TIMES))


def test_finer_formats_reach_more():
    ceilings = measure_ceilings([VIDEO])
    assert ceilings.keys() == {"percent", "clock", "seconds", "json", "tokens"}
    assert ceilings["percent"]["mIoU"] < ceilings["clock"]["mIoU"] < ceilings["seconds"]["mIoU"]
    assert ceilings["seconds"] == ceilings["json"] == ceilings["tokens"]
    assert ceilings["seconds"]["mIoU"] == pytest.approx(1.0) and ceilings["seconds"]["R@0.7"] == 1
    assert ceilings["percent"]["same"] == 0.25


def test_an_event_on_one_timecode_is_read():
    (short,) = VIDEO.events[:1]
    (ceiling,) = measure_ceilings([Annotation("v", 300.0, (short,))], ["percent"]).values()
    assert ceiling["same"] == 1 and 0.3 < ceiling["mIoU"] < 0.4  # 1 s of the 3 s that are rounded to "04"


def test_of_a_data_set(longvale, tmp_path):
    annotation = {"v": {"duration": 300.0, "timestamps": [[12.0, 13.0]], "sentences": ["A bell."]}}
    path = tmp_path / "longvale-annotations-eval.json"
    path.write_text(json.dumps(annotation))
    result = longvale("data", "ceiling", tmp_path)
    assert result.exit_code == 0 and [line.split()[0] for line in result.stdout.splitlines()[:2]] == ["test", "seconds"]
    assert "percent" in longvale("data", "ceiling", path, "--times", "percent").stdout
    assert "unknown time format 'hours'" in longvale("data", "ceiling", path, "--times", "hours").stderr
    annotation["v"] |= {"timestamps": [], "sentences": []}
    path.write_text(json.dumps(annotation))
    result = longvale("data", "ceiling", tmp_path)
    assert result.exit_code == 2 and "test: no events to measure time formats on" in result.stderr
