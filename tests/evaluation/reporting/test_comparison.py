import json
import re
import shutil

import numpy as np
import pytest
from fake_longvale import FakeModel, FakeProcessor
from test_report import Page

from longvale.evaluation.generation.generate import generate
from longvale.evaluation.reporting.comparison import write_run_report
from longvale.evaluation.reporting.figures import means_figure
from longvale.evaluation.scoring.bootstrap import mean_intervals
from longvale.evaluation.scoring.breakdowns import breakdowns, number_groups
from longvale.evaluation.scoring.runs import Mean, choose_videos, load_runs, mean_of, rank_videos, score_runs
from longvale.evaluation.scoring.score import score
from longvale.events import Annotation, Event


@pytest.fixture
def logs(data, tmp_path):
    """Three runs of different models."""
    for seed in (0, 5, 11):
        generate((FakeModel(seed), FakeProcessor()), data, tmp_path / f"{seed}.jsonl", progress=False)
    return [tmp_path / f"{seed}.jsonl" for seed in (0, 5, 11)]


def test_intervals_are_those_of_the_normal_distribution_for_many_videos():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(0.5, 0.2, size=(400, 2)), np.ones(400)
    low, high = mean_intervals(values, weights)
    half = 1.96 * values.std(axis=0, ddof=1) / 20
    np.testing.assert_allclose(low, values.mean(axis=0) - half, atol=0.1 * half.max())
    np.testing.assert_allclose(high, values.mean(axis=0) + half, atol=0.1 * half.max())
    again = mean_intervals(values, weights)
    assert (low == again[0]).all() and (high == again[1]).all()


def test_videos_are_drawn_whole():
    """Ten answers about each of two videos are two draws, not twenty."""
    asked = [(video_id, i) for video_id in "ab" for i in range(10)]
    mean = mean_of(asked, [0.0] * 10 + [1.0] * 10, range(20))
    assert mean == Mean(0.5, 0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "options", "groups"),
    [
        ([5.0, 5.0, 5.0], {}, {"all": [0, 1, 2]}),
        ([3, 3, 3, 4], {"whole": True}, {"3": [0, 1, 2], "4 and more": [3]}),
        ([1.0, 600.0], {"unit": " s"}, {"under 120 s": [0], "120 s and more": [1]}),
    ],
)
def test_groups_of_numbers(values, options, groups):
    assert number_groups(values, **options) == groups


def test_every_question_is_in_one_group_of_a_breakdown():
    rng = np.random.default_rng(1)
    names, relations = ("visual", "audio", "speech"), ("causality", "visual-only", None)
    videos = {}
    for number in range(30):
        duration = float(rng.uniform(30, 600))
        ends = rng.uniform(1, duration, size=rng.integers(1, 20))
        events = [Event(0, end, "x", (names[i % 3],), relations[i % 3]) for i, end in enumerate(ends)]
        videos[f"v{number}"] = Annotation(f"v{number}", duration, tuple(events))
    asked = [(key, i) for key, video in videos.items() for i in range(len(video.events))]
    found, lacking = breakdowns("grounding", asked, videos)
    assert lacking == []
    for breakdown in found:
        places = sorted(place for places in breakdown.groups.values() for place in places)
        wanted = [
            p for p, (key, i) in enumerate(asked) if breakdown.name != "relation" or videos[key].events[i].relation
        ]
        assert places == wanted, breakdown.name
        if breakdown.name not in ("modality", "relation"):
            assert 4 <= len(breakdown.groups) <= 5
    assert [
        breakdown.name for breakdown in breakdowns("dense_captioning", [(key, None) for key in videos], videos)[0]
    ] == [
        "video length",
        "events in the video",
    ]


def test_the_table_holds_what_score_gives_and_the_page_loads_nothing(data, logs, tmp_path, longvale):
    references, page = data / "longvale-annotations-eval.json", tmp_path / "out" / "report.html"
    result = longvale("report", *logs, "--references", references, "--output", page)
    assert result.exit_code == 0, result.output
    read = Page(page.read_text(encoding="utf-8"))
    cells = [text for text in read.texts if re.match(r"\d", text)]
    for log in logs:
        scores = score(log, references)
        for task, names in {"grounding": ("mIoU", "R@0.3"), "dense_captioning": ("soda_c", "F1")}.items():
            for name in names:
                assert any(cell.startswith(f"{scores[task][name] * 100:.2f}") for cell in cells), (log, name)
    assert "B - A" in read.texts and "C - A" in read.texts
    assert "Not shown: relation" in read.text
    assert "model fake; greedy decoding" in read.text and "weights" in read.text and "greedy True" not in read.text
    assert not {"script", "iframe", "link"} & set(read.tags)
    assert all(value.startswith("data:") for _, name, value in read.attributes if name in ("src", "href"))
    assert "<i>vid-a</i> $x$" in read.text  # escaped
    assert "Best:" in read.text and "Worst:" in read.text

    before = page.read_bytes()
    write_run_report(logs, references, page)
    assert page.read_bytes() == before


def test_one_run_and_a_folder(data, logs, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(logs[0], folder / "predictions.jsonl")
    page = write_run_report([folder], data / "longvale-annotations-eval.json", tmp_path / "r.html", videos=0)
    text = Page(page.read_text(encoding="utf-8")).text
    assert (
        "there is no manifest" in text
        and "A star marks" not in text
        and "Differences" not in text
        and "Best:" not in text
    )


def test_runs_that_lack_answers_are_refused_unless_partial(data, logs, tmp_path):
    lines = logs[1].read_text(encoding="utf-8").splitlines()
    logs[1].write_text("\n".join(line for line in lines if '"sentence_id": 0' not in line), encoding="utf-8")
    references = data / "longvale-annotations-eval.json"
    with pytest.raises(ValueError, match=rf"{logs[1].name}: 3 grounding answers are missing"):
        write_run_report(logs, references, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    scores, _ = score_runs(load_runs(logs), references, partial=True)
    assert ("vid-a", 0) not in scores["grounding"].asked and len(scores["grounding"].asked) == 3
    assert {letter: row["missing"] for letter, row in scores["grounding"].counts.items()} == {"A": 0, "B": 3, "C": 0}
    assert {row["count"] for row in scores["grounding"].overall.values()} == {3}


def test_runs_that_do_not_compare(data, logs, tmp_path, longvale):
    only = tmp_path / "only.jsonl"
    only.write_text("\n".join(x for x in logs[1].read_text(encoding="utf-8").splitlines() if '"captioning"' in x))
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(x for x in logs[1].read_text(encoding="utf-8").splitlines() if '"grounding"' in x))
    for paths, message in (
        ([logs[0], logs[0]], "given more than once"),
        ([tmp_path / "nowhere.jsonl"], "no such file"),
        ([only, other], "no task in common"),
        (logs * 3, "give 1 to 6 runs, not 9"),
    ):
        references = data / "longvale-annotations-eval.json"
        result = longvale("report", *paths, "--references", references, "--output", tmp_path / "r.html")
        assert result.exit_code == 2 and message in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1


def test_which_videos_are_shown(data, logs):
    scores, _ = score_runs(load_runs(logs), data / "longvale-annotations-eval.json")
    ranked = rank_videos(scores["grounding"], "mIoU")
    sums = [sum(runs.values()) for runs in ranked.values()]
    assert sums == sorted(sums, reverse=True) and set(ranked) == {"vid-a", "vid-b", "vid-c"}
    shown = choose_videos(ranked, 5)
    assert [video_id for some in shown.values() for video_id in some] == list(ranked)  # each once
    alike = {"a": {"A": 1.0}, "b": {"A": 0.5}, "c": {"A": 0.0}}
    assert choose_videos(alike, 1) == {"best": ["a"], "worst": ["c"]}


def test_points_of_runs_are_told_apart_without_colour():
    letters = "ABCDEF"
    panels = {"modality": {"visual (2)": {letter: Mean(0.5, 0.4, 0.6) for letter in letters}}}
    (axes,) = means_figure("mIoU", panels).axes
    assert len({line.get_marker() for line in axes.lines if line.get_marker() not in ("None", None, "")}) == 6


def test_json_logs_of_others_may_have_more_than_one_answer(data, logs):
    """The published log may ask a question more than once: the first answer counts."""
    lines = [json.loads(line) for line in logs[0].read_text(encoding="utf-8").splitlines()]
    again = {**lines[0], "query_id": 1, "answer": "From 00 to 01."}
    logs[1].write_text("\n".join(json.dumps(line) for line in [*lines, again]))
    scores, _ = score_runs(load_runs(logs[:2]), data / "longvale-annotations-eval.json")
    assert scores["grounding"].rows["A"] == scores["grounding"].rows["B"]


def test_published_scores_are_shown_if_asked_for(logs, data, tmp_path):
    references = data / "longvale-annotations-eval.json"
    for published in (False, True):
        text = write_run_report(logs[:2], references, tmp_path / "page.html", videos=0, published=published).read_text()
        assert ("Scores that others report" in text) == ("LongVALE-LLM" in text) == published
