"""Registries: one extension of each kind, in a file outside of the package, is used by the commands."""

import json
import re
import sys

import numpy as np
import pytest

from longvale.evaluation.adapters.options import AdapterOptions
from longvale.evaluation.evaluate import evaluate
from longvale.evaluation.scoring.score import format_scores
from longvale.registry import REGISTRIES, Registry, adapters, benchmarks, captioners, exporters
from longvale.synthetic.corpus import SyntheticOptions, write_video
from longvale.synthetic.planning import plan_video
from longvale.tasks import TASKS

EXTENSIONS = '''
import re

from longvale.annotation.correlation import Correlation
from longvale.evaluation.adapters.base import Adapter
from longvale.evaluation.adapters.time_formats import TimeFormat
from longvale.evaluation.benchmarks.base import Benchmark
from longvale.io import load_json
from longvale.registry import benchmarks, exporters, metrics
from longvale.tasks import Question

ASKED = []


class Middle(Adapter):
    """Answers that everything happens in the middle."""

    def reply(self, media, text, max_new_tokens):
        ASKED.append((text, max_new_tokens))
        times = [self._times.write(share * media.duration, media.duration) for share in (0.25, 0.75)]
        return f"yes, from {times[0]} to {times[1]}, a bell rings."

    def describe(self):
        return {"model": self.model}


class Ticks(TimeFormat):
    """Tenths of a second."""

    def write(self, time, duration):
        return f"<{10 * time:.0f}>"

    def prompt(self, task):
        return f"In ticks, {task}: " + {"grounding": "$caption", "segment_captioning": "$start"}.get(task, "$duration")

    def read(self, reply, duration):
        return re.sub(r"<([0-9]+)>", lambda match: f"{int(match[1]) / 10} s", reply)


@metrics.register("letters", tasks=("segment_captioning",))
def letters(answers, annotations, protocol):
    """Letters of an answer."""
    rows = [{"letters": float(len(answer.answer))} for answer in answers]
    return {"letters": sum(row["letters"] for row in rows) / len(rows)}, rows


@metrics.register("taken", tasks=("grounding",))
def taken(answers, annotations, protocol):
    return {"mIoU": 1.0}, [{} for _ in answers]


@benchmarks.register("loudness")
class Loudness(Benchmark):
    """Whether a video is loud."""

    files = {"test": ("loudness.json",)}
    titles = {"loudness": "Loudness <of videos>"}
    columns = ("accuracy",)
    number_name = "turn"
    max_new_tokens = 8

    def questions(self, prompt=None):
        rows = load_json(self.path)
        return [Question(name, "loudness", 3, "<video> Is it loud?", answer) for name, answer in rows.items()]

    def score(self, answers, protocol):
        rows = [{"accuracy": float(self.references()[a.key][0] in a.answer)} for a in answers]
        return {"accuracy": sum(row["accuracy"] for row in rows) / len(rows)}, rows


class Nameless(Loudness):
    pass


class Length:
    """Captioner that says how long a clip lasts."""

    size = 48

    def __init__(self, role, options):
        self.name, self.noun = f"length ({role})", options.model or "clip"

    def __call__(self, clip):
        return f"A {self.noun} of {clip.end - clip.start:.0f} s."


def build_length(role, options):
    return Length(role, options)


class Level:
    """Tagger of levels."""

    labels, window_s, hop_s = ("Loud", "Faint", "Quiet"), 1.0, 0.5

    def __init__(self, options):
        self.name = f"level on {options.device}"

    def __call__(self, windows):
        return [[0.9, 0.1, 0.4]] * len(windows)


class Heard:
    """Reasoner that keeps what is heard."""

    def __init__(self, options):
        self.name = f"heard {options.model}, {options.remove_names}"

    def __call__(self, evidence):
        return Correlation(f"Heard: {evidence.captions['audio']}")


@exporters.register("text", label="Plain text", suffix=".txt", mime="text/plain")
def to_text(annotation):
    """One line per event."""
    return "".join(f"{event.start:.1f} {event.caption}\\n" for event in annotation.events)


number = 3
'''


@pytest.fixture
def extensions(tmp_path, monkeypatch):
    """The module `mine` in the current directory, unknown again after the test."""
    (tmp_path / "mine.py").write_text(EXTENSIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for registry in REGISTRIES.values():
        registry.names()
        monkeypatch.setattr(registry, "_objects", dict(registry._objects))
    yield
    sys.modules.pop("mine", None)


def succeed(result):
    assert result.exit_code == 0, result.stderr
    return result.stdout


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_adapter_answers_with_times_in_a_format_of_its_own(longvale, extensions, tiny_corpus, tmp_path):
    words = ["--data", tiny_corpus, "--output", "p", "--adapter", "mine:Middle", "--times", "mine:Ticks", "--limit", 1]
    succeed(longvale("generate", "some-model", *words))
    lines = read_lines(tmp_path / "p")
    assert {line["answer"] for line in lines if line["task"] == "grounding"} == {"From 25 to 75."}
    assert all("<" in line["info"]["reply"] for line in lines)
    manifest = json.loads((tmp_path / "p.run.json").read_text())
    assert (manifest["model"], manifest["times"], manifest["adapter"]) == ("some-model", "mine:Ticks", "mine:Middle")
    asked = sys.modules["mine"].ASKED
    assert re.match(r"In ticks, grounding: \w", asked[0][0])
    assert any(re.fullmatch(r"In ticks, segment_captioning: <\d+>", text) for text, _ in asked)
    before = len(asked)
    succeed(longvale("generate", "some-model", *words))
    assert len(asked) == before  # nothing is asked again
    result = longvale("generate", "some-model", *words, "--load-in-4bit", "--overwrite")
    assert result.exit_code == 2 and "mine:Middle: this adapter does not load weights" in result.stderr


def test_a_metric_appears_in_the_scores(longvale, extensions, tiny_corpus, tmp_path):
    words = ["--data", tiny_corpus, "--output", "e", "--adapter", "mine:Middle", "--metric", "mine:letters"]
    table = succeed(longvale("evaluate", "m", *words))
    scores = json.loads((tmp_path / "e" / "scores.json").read_text())
    answers = [line["answer"] for line in read_lines(tmp_path / "e" / "predictions.jsonl")]
    captions = [answer for answer in answers if answer.startswith("yes")]
    assert scores["segment_captioning"]["letters"] == pytest.approx(np.mean([len(caption) for caption in captions]))
    assert "letters" not in scores["grounding"] and scores["metrics"] == {"segment_captioning": ["letters"]}
    assert re.search(r"segment_captioning .* letters$", table, re.MULTILINE)
    log, references = tmp_path / "e" / "predictions.jsonl", tiny_corpus / "longvale-annotations-eval.json"
    score = ["score", log, "--references", references]
    succeed(longvale(*score, "--metric", "mine:letters", "--per-video", "v.json"))
    videos = json.loads((tmp_path / "v.json").read_text())["videos"]
    assert all(video["segment_captioning"]["letters"] > 0 for video in videos.values())
    result = longvale(*score, "--metric", "mine:letters", "--tasks", "grounding")
    assert (
        result.exit_code == 2
        and "mine:letters scores segment_captioning; the answers are to grounding" in result.stderr
    )
    result = longvale(*score, "--metric", "mine:taken")
    assert result.exit_code == 2 and "mIoU is a score of grounding already" in result.stderr


def test_a_benchmark_is_asked_and_scored(longvale, extensions, tiny_corpus, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "loudness.json").write_text('{"test_0000": "yes", "test_0001": "no"}')
    words = ["--data", "d", "--videos", tiny_corpus / "videos", "--adapter", "mine:Middle", "--output", "e"]
    table = succeed(longvale("evaluate", "m", "--tasks", "mine:Loudness", *words))
    assert "loudness" in table and "50.00" in table
    (first, _) = read_lines(tmp_path / "e" / "predictions.jsonl")
    assert first["task"] == "loudness" and first["info"]["turn"] == 3
    assert [limit for _, limit in sys.modules["mine"].ASKED] == [8, 8]
    page = (tmp_path / "e" / "report.html").read_text()
    assert "Loudness &lt;of videos&gt;" in page and "50.00" in page
    score = ["score", tmp_path / "e" / "predictions.jsonl", "--references", "d/loudness.json"]
    succeed(longvale(*score, "--tasks", "mine:Loudness", "--output", "s.json"))
    assert json.loads((tmp_path / "s.json").read_text())["loudness"] == {"accuracy": 0.5}
    result = longvale("evaluate", "m", "--tasks", "mine:Nameless", *words)
    assert result.exit_code == 2 and "mine:Nameless: has no name; decorate it with" in result.stderr


def test_a_log_imports_nothing(longvale, extensions, tmp_path):
    line = {"video_id": "a", "task": "mine:Loudness", "answer": "x", "info": {"turn": 0}}
    (tmp_path / "log").write_text(json.dumps(line))
    result = longvale("score", "log", "--references", "log")
    assert result.exit_code == 2 and "line 1: unknown task 'mine:Loudness'" in result.stderr
    assert "mine" not in sys.modules


@pytest.fixture
def annotated(longvale, extensions, tmp_path):
    """Annotate a video with the captioners, the tagger and the reasoner of the module, and more options."""
    options = SyntheticOptions(size=32, fps=4, min_length_s=8, max_length_s=9)
    write_video(plan_video("clip", 0, options), tmp_path / "clip.mp4", options)

    def annotate(*words):
        return longvale("annotate", "clip.mp4", "--output", "a.json", "--tagger", "mine:Level", *words)

    return annotate


def test_captioners_a_tagger_and_a_reasoner_annotate(longvale, annotated, tmp_path):
    words = ["--video-captioner", "mine:Length", "--audio-captioner", "mine:build_length:sound", "--reasoner"]
    succeed(annotated(*words, "mine:Heard:a model", "--keep-names", "--device", "cpu"))
    captions = read_lines(tmp_path / "a.stages" / "captions.jsonl")
    for record in captions:
        lasts = round(record["end"] - record["start"])
        assert record["captions"]["video"] == f"A clip of {lasts} s."
        assert record["captions"]["audio"] == f"A sound of {lasts} s. Sounds: Loud, Quiet."
    (sounds,) = read_lines(tmp_path / "a.stages" / "tracks.jsonl")
    assert {span["text"]: span["score"] for span in sounds["spans"]} == {"Loud": 0.9, "Quiet": 0.4}
    ((video_id, video),) = json.loads((tmp_path / "a.json").read_text()).items()
    assert video["sentences"][0].startswith("Heard: A sound of") and video_id == "clip"
    provenance = json.loads((tmp_path / "a.provenance.json").read_text())
    assert provenance["captioners"]["video"] == "length (video)"
    assert (provenance["tracks"]["sounds"], provenance["reasoner"]) == ("level on cpu", "heard a model, False")
    result = annotated(*words, "concatenation", "--keep-names", "--device", "cpu")
    assert result.exit_code == 2 and "was made with reasoner 'heard a model, False'" in result.stderr

    succeed(longvale("annotate", "export", "a.json", "--to", "mine:to_text", "--output", "texts"))
    assert (tmp_path / "texts" / "clip.txt").read_text().startswith(f"0.0 {video['sentences'][0]}\n")


def test_the_answer_is_written_by_an_exporter(longvale, extensions, tiny_corpus, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("longvale.evaluation.ask.answer_batch", lambda *_: ["From 50 to 99, a bell rings."])
    words = ["ask", tiny_model, tiny_corpus / "videos" / "test_0000.mp4", "What happens?"]
    succeed(longvale(*words, "--output", "events.list", "--format", "mine:to_text"))
    assert (tmp_path / "events.list").read_text().endswith(" a bell rings.\n")
    succeed(longvale(*words, "--output", "events.txt"))  # its suffix is known now
    assert (tmp_path / "events.txt").read_bytes() == (tmp_path / "events.list").read_bytes()
    result = longvale(*words, "--format", "srt")
    assert result.exit_code == 2 and "give the file by --output" in result.stderr


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("adapters", "gpt", "unknown adapter 'gpt'; expected one of chat, served, server, or package.module:Name"),
        (
            "adapters",
            "nowhere.at_all:X",
            "nowhere.at_all:X: the module cannot be imported (ModuleNotFoundError: No mod",
        ),
        ("adapters", "broken:X", "broken:X: the module cannot be imported (ZeroDivisionError: division by zero)"),
        ("adapters", "mine:Missing", "mine:Missing: the module mine does not define Missing"),
        ("adapters", "mine:Length", "mine:Length: is not an adapter: it lacks build, settings, check, answer"),
        ("adapters", "mine:number", "mine:number: is not an adapter: it lacks build"),
        (
            "benchmarks",
            "longvale.evaluation.benchmarks.base:Benchmark",
            "it lacks questions, score, files, titles, col",
        ),
        ("metrics", "mine:to_text", "mine:to_text: is not a metric: it lacks tasks"),
        ("exporters", "mine:letters", "mine:letters: is not an exporter: it lacks label, suffix, mime"),
        ("taggers", "mine:Ticks", "mine:Ticks: is not a tagger: it lacks __call__"),
        ("diarizers", "mine:Ticks", "mine:Ticks: is not a diarizer: it lacks __call__"),
    ],
)
def test_what_is_no_extension_is_refused_in_one_line(extensions, tmp_path, kind, name, message):
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ValueError) as error:
        REGISTRIES[kind].get(name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_names_are_checked_before_a_model_is_loaded(tiny_corpus, tmp_path):
    with pytest.raises(ValueError, match=r"unknown adapter 'gpt'.*; a LongVALE checkpoint needs no adapter"):
        AdapterOptions("gpt")
    with pytest.raises(ValueError, match="unknown time format 'ticks'"):
        AdapterOptions("chat", times="ticks")
    with pytest.raises(ValueError, match="unknown metric 'words'"):
        evaluate("no model", tiny_corpus, tmp_path / "out", metrics=["words"])


def test_what_a_factory_cannot_do_is_said(extensions):
    with pytest.raises(ValueError, match=r"mine:Level: a captioner is called with \(str, int\): too many positional"):
        captioners.create("mine:Level", "video", 3)
    with pytest.raises(ValueError, match=r"longvale\.io:is_number: is not a captioner: it lacks __call__, name, size"):
        captioners.create("longvale.io:is_number", 3)


@pytest.mark.parametrize("name", ["all", *TASKS])
def test_a_benchmark_has_no_name_of_a_task_of_longvale(extensions, name):
    with pytest.raises(ValueError, match=f"a benchmark cannot be named '{name}'; choose another name"):
        benchmarks.register(name)(benchmarks.registered("avsd"))
    assert name not in benchmarks.names()


def test_a_name_is_taken_once(extensions):
    with pytest.raises(
        ValueError, match=r"an exporter named 'srt' exists: longvale\.exports:to_srt; choose another name"
    ):
        exporters.register("srt", label="", suffix="", mime="")(lambda annotation: "")


def test_list_prints_what_there_is(longvale):
    lines = succeed(longvale("list")).splitlines()
    assert {line.split()[0] for line in lines} <= REGISTRIES.keys()
    (srt,) = (line for line in lines if line.startswith("exporters") and " srt " in line)
    assert srt.split(maxsplit=3)[2:] == [
        "built-in",
        "Return SubRip subtitles: numbered from 1, in the order of the events' starts.",
    ]
    entries = [json.loads(line) for line in succeed(longvale("list", "benchmarks", "--json")).splitlines()]
    assert [entry["name"] for entry in entries] == ["avsd", "avsd_first", "music_avqa"]
    assert all(entry["source"] == "built-in" and entry["summary"] for entry in entries)
    result = longvale("list", "songs")
    assert result.exit_code == 2 and "unknown kind 'songs'; expected one of adapters, benchmarks" in result.stderr


def test_installed_packages_register_by_entry_points(longvale, extensions, tmp_path, monkeypatch, caplog):
    points = "[longvale.adapters]\nmiddle = mine:Middle\nchat = mine:Middle\n[longvale.exporters]\nlost = nowhere:X\n"
    metadata = tmp_path / "mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (adapters, exporters):
        monkeypatch.setattr(registry, "_points", None)
    assert adapters.get("middle").__name__ == "Middle" and adapters.get("chat").__name__ == "ChatAdapter"
    assert re.search(r"adapters +middle +entry point of mine +Answers that", succeed(longvale("list", "adapters")))
    assert re.search(
        r" lost +entry point of mine +nowhere:X: cannot be imported", succeed(longvale("list", "exporters"))
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    sys.path.remove(str(tmp_path))
    before = list(sys.path)
    assert exporters.get("srt") in exporters.load_all() and "nowhere:X: cannot be imported" in caplog.text
    assert sys.path == before  # a name of a package does not let in what lies in the current directory


def test_what_a_file_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    scores = {"counts": {"planted:X": {}}, "planted:X": {}, "protocol": "strict"}
    with pytest.raises(ValueError, match="unknown benchmark 'planted:X'"):
        format_scores(scores)
    with pytest.raises(SystemExit):
        benchmarks.get("planted:X")


def test_a_new_file_of_the_package_is_found(tmp_path, monkeypatch):
    """A built-in is one file with a decorator: no list of names elsewhere."""
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "__init__.py").write_text("")
    (tmp_path / "songs" / "bird.py").write_text(
        "import builtins\n@builtins.songs.register('bird')\nclass Bird:\n    play = print"
    )
    monkeypatch.syspath_prepend(tmp_path)
    songs = Registry("songs", "a song", "songs", methods=("play",))
    monkeypatch.setattr("builtins.songs", songs, raising=False)
    assert songs.names() == ("bird",)
