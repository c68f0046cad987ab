import json

import pytest

from longvale.evaluation.analysis.selection import load_selection, select_questions
from longvale.tasks import Prediction

EVENTS = ((0.0, 12.0), (30.0, 60.0), (6.0, 30.0))


@pytest.fixture
def corpus(tmp_path):
    video = {"duration": 60.0, "timestamps": list(EVENTS), "sentences": ["a", "b", "c"]}
    (tmp_path / "longvale-annotations-training.json").write_text(json.dumps({"v": video}))
    return tmp_path


def write(path, *answers, video="v"):
    """A log of grounding: an answer to each event; and one of another task."""
    lines = [Prediction(video, "grounding", answer, index).to_log() for index, answer in enumerate(answers)]
    lines.append(Prediction(video, "segment_captioning", "A bell.", 0).to_log())
    path.write_text("\n".join(lines) + "\n")
    return path


def test_questions_are_kept_by_the_mean_of_their_answers(corpus, tmp_path, longvale):
    first = write(tmp_path / "0.jsonl", "From 00 to 20.", "From 00 to 10.", "From 10 to 50.")
    second = write(tmp_path / "1.jsonl", "From 00 to 20.", "never", "never")
    output = tmp_path / "kept.json"
    printed = longvale("data", "select", first, second, "--data", corpus, "--output", output)
    assert printed.exit_code == 0, printed.output
    assert "1 questions kept, 1 too hard, 1 too easy, by 2 answers to each" in printed.stdout
    assert load_selection(output) == {("v", "grounding", 2)}
    every = select_questions([first, second], corpus, least=0.0, most=1.0)
    assert len(every.kept) == 3 and every.too_hard == every.too_easy == 0


def test_exact_times_are_used(corpus, tmp_path):
    read = {"read": [[0.0, 12.0]], "duration": 60.0, "reader": "seconds"}
    line = Prediction("v", "grounding", "From 00 to 50.", 0, info=read).to_log()
    (tmp_path / "0.jsonl").write_text(line + "\n")
    assert select_questions([tmp_path / "0.jsonl"], corpus, least=1.0, most=1.0).kept == (("v", "grounding", 0),)


@pytest.mark.parametrize(
    ("logs", "options", "message"),
    [
        ([["From 00 to 20."]], {"least": 0.8, "most": 0.2}, "min-iou and max-iou must be 0 to 1"),
        ([["From 00 to 20."]], {"most": 0.5}, r"no question has a mean IoU of 0.1 to 0.5"),
        ([["From 00 to 20."], ["From 00 to 20."] * 2], {}, "1.jsonl: v/1 is not answered in all logs"),
        ([["never"] * 4], {}, r"v/3 is no event of .*training.json; give the split"),
        ([[]], {}, "0.jsonl: has no answer to grounding"),
    ],
)
def test_what_is_wrong_is_named(corpus, tmp_path, logs, options, message):
    paths = [write(tmp_path / f"{number}.jsonl", *answers) for number, answers in enumerate(logs)]
    with pytest.raises(ValueError, match=message):
        select_questions(paths, corpus, **options)


@pytest.mark.parametrize("content", ["[]", '{"questions": []}', '{"questions": [["v", "grounding"]]}'])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "kept.json").write_text(content)
    with pytest.raises(ValueError, match=r"kept.json: .*longvale data select"):
        load_selection(tmp_path / "kept.json")
