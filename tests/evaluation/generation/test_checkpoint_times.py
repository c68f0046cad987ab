"""A LongVALE checkpoint that was trained to write times in another format is asked and read in it."""

import json

import numpy as np
import pytest
from fake_longvale import FakeModel, FakeProcessor

from longvale.app.server import serve as serve_page
from longvale.evaluation.adapters.time_formats import check_sentences, own_format, own_times, recorded_format
from longvale.evaluation.ask import ask
from longvale.evaluation.generation.generate import generate
from longvale.evaluation.scoring.score import score
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.media import Media
from longvale.serving.server import serve as serve_api
from longvale.tasks import load_predictions


class TimedModel(FakeModel):
    """Answers with the times of vid-b's event, to a tenth."""

    def __init__(self, times, span):
        super().__init__()
        self.config.time_format, self.span = times, span

    def answer(self, prompt, features):
        if "describe what occurred" in prompt:
            return "A bell rings."
        return f"{self.span}, a bell rings." if "detail the events" in prompt else f"{self.span}."


def run(data, output, model, **options):
    return generate((model, FakeProcessor()), data, output, batch_size=2, progress=False, **options)


@pytest.mark.parametrize(
    ("times", "span", "asked"),
    [
        ("seconds", "From 2.1 to 7.9 seconds", "occurred from 2.0 to 8.0 seconds in the video?"),
        ("clock", "From 0:02 to 0:08", "occurred from 0:02 to 0:08 in the video?"),
        ("tokens", "From <2.1 seconds> to <7.9 seconds>", "occurred from <2.0 seconds> to <8.0 seconds> in"),
    ],
)
def test_evaluation_asks_and_reads_in_the_format(data, tmp_path, times, span, asked):
    model = TimedModel(times, span)
    log = run(data, tmp_path / "p", model, max_new_tokens=80)
    prompts = [prompt for batch in model.batches for prompt in batch]
    assert any(asked in prompt for prompt in prompts)
    assert not any("occurred from 10 to 40" in prompt for prompt in prompts)  # percent
    manifest = json.loads((tmp_path / "p.run.json").read_text())
    assert manifest["times"] == times
    found = {p.key: p for p in load_predictions(log)}["vid-b", "grounding", 0]
    start, end = (2.0, 8.0) if times == "clock" else (2.1, 7.9)
    assert found.info["reply"] == f"{span}." and found.answer.startswith("From 1")
    assert found.info["read"] == [[start, end]]
    scores = score(log, data / "longvale-annotations-eval.json", partial=True)
    assert scores["counts"]["grounding"]["parsed_share"] == 1.0
    # Scored as read, not as rounded to percent: of 6 s of the event, all but .2 s are found.
    shares = {p.video_id: p.parse() for p in load_predictions(log) if p.task == "grounding"}
    assert (shares["vid-b"].start, shares["vid-b"].end) == pytest.approx((5 * start, 5 * end))


def test_timecodes_stay_as_published(data, tmp_path):
    plain, named = FakeModel(), FakeModel()
    named.config.time_format = "percent"
    first, second = run(data, tmp_path / "a", plain), run(data, tmp_path / "b", named)
    assert first.read_bytes() == second.read_bytes() and plain.batches == named.batches
    assert "times" not in json.loads((tmp_path / "b.run.json").read_text())


@pytest.mark.parametrize("name", ["fortnights", "spoilt_times:Format"])
def test_a_format_that_a_file_names_is_looked_up_and_never_imported(data, tmp_path, monkeypatch, name):
    (tmp_path / "spoilt_times.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"time_format of the checkpoint's config.json: unknown .*{name}"):
        run(data, tmp_path / "p", TimedModel(name, ""))


def test_ask_reads_the_format():
    class AskProcessor(FakeProcessor):
        def __call__(self, text=None, videos=None, **kwargs):
            named = None if videos is None else [type("Named", (), {"name": "x"})]
            return super().__call__(text=text, videos=named, **kwargs)

    media = Media(60.0, np.zeros((4, 8, 8, 3), np.uint8), np.arange(4.0), None, 16000)
    model = TimedModel("seconds", "From 6.1 to 29.9 seconds")
    for question, task in (("A bell rings.", "grounding"), (None, "dense_captioning"), ("What and when?", None)):
        (event,) = ask((model, AskProcessor()), media, question, task=task).events
        assert (event.start, event.end) == pytest.approx((6.1, 29.9))
    answer = ask((model, AskProcessor()), media, task="segment_captioning", span=(6.0, 30.0))
    assert answer.events == () and "occurred from 6.0 to 30.0 seconds in" in model.batches[-1][0]


@pytest.mark.parametrize("serve", [serve_page, serve_api])
def test_servers_refuse_what_they_do_not_read(serve):
    with (
        pytest.raises(ValueError, match=r"longvale (app|serve) supports timecodes .* writes times as seconds; use"),
        serve((TimedModel("seconds", ""), FakeProcessor()), port=0),
    ):
        raise AssertionError("it was served")


def test_formats_by_configuration():
    config = LongVALEConfig(text_config={"model_type": "llama", "hidden_size": 64})
    assert own_times(config) == "" and own_format(config) is None and config.time_format == "percent"
    config.time_format = "clock"
    again = LongVALEConfig.from_dict(config.to_dict())
    assert own_times(again) == "clock" and own_format(again).write(65, 100) == "1:05"
    assert recorded_format(object(), "seconds") == "seconds"
    for name in ("seconds", "clock", "percent", "tokens"):
        check_sentences(name)
