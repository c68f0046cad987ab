import base64
import json
import re
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from fake_longvale import FakeModel, FakeProcessor

from longvale import tasks
from longvale.evaluation import ask
from longvale.evaluation.analysis.ablation import SETTINGS, ablation, format_ablation
from longvale.evaluation.evaluate import evaluate
from longvale.evaluation.reporting.comparison import write_run_report
from longvale.evaluation.reporting.figures import curves_figure, svg_uri
from longvale.evaluation.reporting.report import write_report
from longvale.evaluation.scoring.score import score, score_predictions
from longvale.events import Annotation, Event
from longvale.tasks import Prediction, load_predictions

CURVES = [{"name": "boundary_$perception", "steps": [1, 2], "loss": [3.0, 2.0]}]


class Page(HTMLParser):
    """The tags, attributes and texts of a page; a void tag needs no end."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def pair():
    return FakeModel(), FakeProcessor()


def test_evaluate_leaves_answers_scores_and_report(data, tmp_path, pair):
    output = tmp_path / "out"
    options = {"with_ablation": True, "training_curves": CURVES, "batch_size": 4, "progress": False}
    scores = evaluate(pair, data, output, title="A & B", **options)
    assert json.loads((output / "scores.json").read_text()) == {k: v for k, v in scores.items() if k != "videos"}
    assert {path.name for path in output.iterdir()} == {
        "predictions.jsonl",
        "predictions.jsonl.run.json",
        "scores.json",
        "report.html",
        "ablation.json",
        "ablation",
    }
    files = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    page = Page((output / "report.html").read_text(encoding="utf-8"))
    assert "A & B" in page.text
    assert f"{scores['grounding']['mIoU'] * 100:.2f}" in page.texts
    assert page.tags.count("img") == 3 + 1  # the videos with answers, and the curves
    assert page.tags.count("details") == 3  # the tables of a video are shown on request
    assert "visual+speech" in page.texts and "speech (1)" in page.texts

    model = FakeModel()
    assert evaluate((model, FakeProcessor()), data, output, title="A & B", **options) == scores
    assert model.batches == []
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == files


def test_the_report_is_self_contained_and_escapes(data, tmp_path):
    annotation = Annotation("<vid>&", 30.0, (Event(0, 10, "<script>alert('x')</script> & $a_b$ \x00"),))
    predictions = [
        Prediction("<vid>&", "grounding", "<img src=http://evil> From 00 to 50.", 0),
        Prediction("<vid>&", "segment_captioning", "</td></table>$body", 0),
        Prediction("<vid>&", "dense_captioning", "From 00 to 50, <iframe> ${title}."),
    ]
    scores = score_predictions(predictions, {"<vid>&": annotation})
    path = write_report(tmp_path / "r.html", scores, {"<vid>&": annotation}, predictions, title="<title>")
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "iframe", "link", "object"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href"):
            assert value.startswith("data:image/svg+xml;base64,"), value
    assert "url(" not in html
    for text in (
        "<script>alert('x')</script>",
        "</td></table>$body",
        "<iframe> ${title}.",
        "<vid>&, 30.0 s",
        "<title>",
    ):
        assert text in page.text, text
    svg = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert b"script" not in svg


def test_an_answer_without_events_is_shown_as_it_is(tmp_path):
    annotation = Annotation("v", 30.0, (Event(0, 10, "A bell rings."),))
    predictions = [Prediction("v", "dense_captioning", "I cannot <tell>.")]
    scores = score_predictions(predictions, {"v": annotation})
    page = Page(write_report(tmp_path / "r.html", scores, {"v": annotation}, predictions).read_text(encoding="utf-8"))
    assert "I cannot <tell>." in page.texts


def test_number_of_videos(data, tmp_path, pair):
    evaluate(pair, data, tmp_path, report_videos=1, limit=2, progress=False)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("h3") == 1
    assert json.loads((tmp_path / "scores.json").read_text())["counts"]["grounding"]["missing"] == 2


def test_ablation_asks_the_same_questions_with_modalities_left_out(data, tmp_path, pair):
    result = ablation(pair, data, tmp_path, progress=False)
    assert result == json.loads((tmp_path / "ablation.json").read_text())
    assert list(result["settings"]) == list(SETTINGS) == ["none", "visual", "visual+audio", "visual+speech", "all"]
    assert result["count"] == {"all": 6, "visual": 1, "audio": 2, "speech": 1, "joint": 1}
    for row in result["mIoU"].values():
        assert set(row) == set(SETTINGS)
    # The videos have no speech: leaving it out changes nothing, leaving sound out does.
    logs = {name: (tmp_path / "ablation" / f"{name}.jsonl").read_bytes() for name in SETTINGS}
    assert logs["all"] == logs["visual+audio"] != logs["visual"] == logs["visual+speech"] != logs["none"]
    assert format_ablation(result).count("\n") == 5


def test_curves():
    (axes,) = curves_figure(CURVES).axes
    assert list(axes.lines[0].get_xdata()) == [1, 2]
    assert svg_uri(curves_figure(CURVES)) == svg_uri(curves_figure(CURVES))
    with pytest.raises(ValueError, match="2 steps but 1 losses"):
        curves_figure([{"name": "a", "steps": [1, 2], "loss": [1.0]}])


@pytest.fixture
def parsed(monkeypatch):
    """Count the texts that are parsed."""
    counts = Counter()

    def counted(parse, text, *protocol):
        counts[text] += 1
        return parse(text, *protocol)

    for module in (tasks, ask):
        for name in ("parse_span", "parse_events", "strip_reasoning"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, partial(counted, getattr(module, name)))
    return counts


def test_each_answer_is_parsed_once(data, tmp_path, pair, parsed):
    """Counts, scores, breakdowns by modality and the report are made from the same parsed answers."""
    evaluate(pair, data, tmp_path / "out", progress=False)
    answers = [prediction.answer for prediction in load_predictions(tmp_path / "out" / "predictions.jsonl")]
    assert len(answers) == 15 and parsed == Counter(answers)
    parsed.clear()
    references = data / "longvale-annotations-eval.json"
    score(tmp_path / "out" / "predictions.jsonl", references)
    assert parsed == Counter(answers)
    parsed.clear()
    write_run_report([tmp_path / "out"], references, tmp_path / "runs.html")
    assert parsed == Counter(answers)
