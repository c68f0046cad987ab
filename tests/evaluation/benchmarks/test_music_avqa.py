import json

import pytest
from fake_longvale import FakeModel, FakeProcessor

from longvale.evaluation.benchmarks.music_avqa import PROTOCOLS, load_rows, normalize, questions
from longvale.evaluation.evaluate import evaluate
from longvale.evaluation.generation.generate import generate
from longvale.evaluation.scoring.score import format_scores, score
from longvale.tasks import load_predictions


def write_log(music, path, answers):
    rows = load_rows(music / "avqa-test.json")
    lines = [
        {"video_id": row.video_id, "task": "music_avqa", "answer": text, "info": {"question_id": row.question_id}}
        for row, text in zip(rows, answers, strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


#: What each protocol says of a prediction and an answer; the oddities are those of the published scorers.
VERDICTS = [
    ("Two.", "two", {"strict", "videollama2", "tdc_video"}),
    ("2", "two", {"strict", "crema"}),
    ("", "two", {"crema"}),
    ("piano", "no", {"tdc_video"}),
    ("saxophone", "one", {"tdc_video"}),
    ("acoustic guitar", "acoustic_guitar", {"strict", "crema"}),
    ("acoustic_guitar", "acoustic_guitar", set(PROTOCOLS)),
    ("guitar", "acoustic_guitar", {"crema"}),
    ("No, the drum is louder", "no", {"tdc_video"}),
    ("12", "more than ten", {"strict", "crema"}),
    ("ten", "more than ten", {"crema"}),
]


@pytest.mark.parametrize(("prediction", "answer", "right"), VERDICTS)
def test_protocols(prediction, answer, right):
    assert {name for name, is_right in PROTOCOLS.items() if is_right(prediction, answer)} == right


@pytest.mark.parametrize("text", ["", "²", "٣", "-1", "1.5", "9" * 400, "\ud83d", "two\nthree"])
def test_any_text_can_be_normalized(text):
    assert normalize(normalize(text)) == normalize(text)


def test_questions_are_filled_from_left_to_right(music):
    rows = load_rows(music / "avqa-test.json")
    asked = {q.sentence_id: q for q in questions(rows)}
    assert asked[101].question.startswith("<video>\nIs the flute louder than the drum?")
    assert [q.video_id for q in questions(rows)] == ["00000093"] * 3 + ["00000101"] * 2  # a video's together
    crema = {q.sentence_id: q.question for q in questions(rows, "crema")}
    assert "Is the flute louder than the flute?" in crema[101]  # as its code does
    assert crema[101].endswith("using a single word or phase.")
    tdc = {q.sentence_id: q.question for q in questions(rows, "tdc_video")}
    assert tdc[102] == "<video>\nWhere is the performance? Answer with a single word or phrase."


def test_accuracy_by_type_and_what_others_would_say(music, tmp_path):
    log = write_log(music, tmp_path / "log", ["Two.", "piano", "indoor", "", "eleven"])
    scores = score(log, music / "avqa-test.json")
    of_task = scores["music_avqa"]
    assert of_task["accuracy"] == 2 / 5
    assert of_task["by_group"] == {"Audio": 0.0, "Audio-Visual": 0.5, "Visual": 1.0}
    assert of_task["by_type"]["Audio-Visual Counting"] == 1.0 and of_task["counts_by_type"]["Audio Counting"] == 1
    assert of_task["protocols"] == {"strict": 0.4, "videollama2": 0.4, "crema": 0.4, "tdc_video": 0.6}
    assert scores["counts"]["music_avqa"]["parsed_share"] == 2 / 5  # an answer of the file, however spelled
    assert score(log, music / "avqa-test.json", protocol="tdc_video")["music_avqa"]["accuracy"] == 0.6
    text = format_scores(scores)
    assert "each protocol: strict 40.00, videollama2 40.00, crema 40.00, tdc_video 60.00" in text
    assert scores["videos"]["00000101"]["music_avqa"] == {"accuracy": 0.5, "count": 2}


def test_generate_and_evaluate(music, tmp_path):
    pair = FakeModel(), FakeProcessor()
    scores = evaluate(pair, music, tmp_path / "out", tasks=["music_avqa"], progress=False)
    assert scores["music_avqa"]["count"] == 5
    first = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
    assert first["task"] == "music_avqa" and first["info"] == {"question_id": 100}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Protocol strict" in page and "tdc_video" in page and "Audio-Visual Counting" in page
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    evaluate((FakeModel(), FakeProcessor()), music, tmp_path / "out", tasks=["music_avqa"], progress=False)
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before


def test_another_prompt_is_another_run(music, tmp_path):
    pair = FakeModel(), FakeProcessor()
    log = generate(pair, music, tmp_path / "p", tasks=["music_avqa"], progress=False)
    with pytest.raises(ValueError, match="was made with prompt"):
        generate(pair, music, log, tasks=["music_avqa"], prompt="crema", progress=False)
    (tmp_path / "mine.txt").write_text("$question In one word.")
    model = FakeModel()
    own = tmp_path / "own"
    options = {"tasks": ["music_avqa"], "prompt": str(tmp_path / "mine.txt"), "progress": False}
    generate((model, FakeProcessor()), music, own, **options)
    assert all("In one word. ASSISTANT" in prompt for batch in model.batches for prompt in batch)
    assert len(load_predictions(own)) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["music_avqa", "grounding"]}, "are of several benchmarks; ask one at a time"),
        ({"tasks": ["music_avqa", "avsd"]}, "avsd, music_avqa are of several benchmarks; ask one"),
        ({"tasks": ["music_avqa"], "prompt": "llava"}, "llava: no such prompt of music_avqa; give crema, tdc_video"),
        ({"tasks": ["music_avqa"], "split": "dev"}, "unknown split 'dev'"),
        ({"tasks": ["music_avqa"], "split": "validation"}, r"avqa-val\.json: no such file"),
        ({"tasks": ["grounding"], "prompt": "crema"}, "prompt is for zero-shot tasks"),
    ],
)
def test_bad_options(music, tmp_path, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        generate((FakeModel(), FakeProcessor()), music, tmp_path / "p", progress=False, **options)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("anser", 3, "question 1: field 'anser' must be a text, not 3"),
        ("templ_values", '["flute"]', "question 1: field 'templ_values' must hold a list of 2 texts"),
        ("type", '["Audio"]', "question 1: field 'type' must hold a list of two texts"),
        ("type", "Audio", "question 1: not JSON"),
        ("video_id", "../x", "question 1: video id '../x' must not hold a path"),
        ("question_id", True, "question 1: field 'question_id' must be a whole number"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(music, field, value, message):
    path = music / "avqa-test.json"
    rows = json.loads(path.read_text())
    rows[1][field] = value
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        load_rows(path)


def test_scores_of_what_does_not_fit(music, tmp_path, longvale):
    log = write_log(music, tmp_path / "log", ["yes"] * 5)
    with pytest.raises(ValueError, match="unknown protocol 'official' of music_avqa; expected one of strict"):
        score(log, music / "avqa-test.json", protocol="official")
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
    result = longvale("score", log, "--references", music / "avqa-test.json")
    assert result.exit_code == 2 and "log: 2 music_avqa answers are missing" in result.stderr
    assert longvale("score", log, "--references", music / "avqa-test.json", "--partial").exit_code == 0
