"""The whole pipeline: what it leaves, how it goes on, and inputs of all kinds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from chat_server import GOOD, Server
from needs import needs_annotation

from longvale.annotation.captions import template_captioners
from longvale.annotation.correlation import Concatenation, LanguageModelReasoner
from longvale.annotation.filters import FilterOptions
from longvale.annotation.pipeline import AnnotationModels, AnnotationOptions, annotate, stage_folder
from longvale.annotation.stages import StageLog, Stages
from longvale.chat_client import ChatClient, NoAnswer, ServerError
from longvale.events import RELATIONS, load_annotations
from longvale.io import load_json

STAGES = ("videos", "boundaries", "captions", "events")


def lines(output, stage):
    return [json.loads(line) for line in (stage_folder(output) / f"{stage}.jsonl").read_text().splitlines()]


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def videos(film, tmp_path):
    """Two videos of 8 s in a folder."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        os.link(film("two.mp4", 8), folder / name)
    return folder


def run(videos, output, reasoner=None, **options):
    return annotate(
        [videos], output, models=AnnotationModels(reasoner=reasoner or Concatenation()), progress=False, **options
    )


@needs_annotation
def test_the_command_line_runs_offline_from_start_to_end(longvale, videos, tmp_path):
    output = tmp_path / "longvale-annotations-eval.json"
    result = longvale("annotate", videos, "--output", output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(f"{output}: 2 of 2 videos annotated, 4 events\n")
    made = load_annotations(output)["a"]
    assert made.duration == pytest.approx(8, abs=0.1)
    # Red to blue at 4 s, a sound that ends at 4.8 s across it: the boundary is that of the sound.
    (first, second) = made.events
    assert (first.start, first.end, second.start, second.end) == pytest.approx((0, 4.8, 4.8, 8), abs=0.3)
    assert first.caption.endswith("Loud steady tone throughout.") and "Hz" not in first.caption
    (record, _) = [r for r in lines(output, "captions") if r["video_id"] == "a"]
    assert record["measured"]["pitch_hz"] == pytest.approx(300, abs=3) and "red" in record["measured"]["colours"]
    assert {fact["modality"] for fact in record["facts"]} == {"visual", "audio"}
    assert {"videos.jsonl", "boundaries.jsonl", "captions.jsonl", "events.jsonl", "settings.json"} <= files(
        stage_folder(output)
    )
    assert (stage_folder(output) / "timelines" / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert not output.with_suffix(".funnel.png").exists()  # nothing was filtered
    told = load_json(output.with_suffix(".provenance.json"))
    assert told["captioners"]["video"] == "template of facts (video)" and told["reasoner"] == "concatenation"
    assert told["options"]["visual"]["stitch"] == 0.6 and len(told["prompts"]["correlation.txt"]) == 16
    assert told["versions"]["av"] and set(told["seconds"]) == {"videos", "boundaries", "captions", "events"}

    import datasets

    rows = datasets.load_dataset("longvale", "events", data_dir=str(tmp_path), split="test")
    assert rows[0]["caption"] == first.caption and rows[0]["modalities"] == ["visual", "audio"]


@needs_annotation
def test_a_finished_run_does_nothing_and_other_settings_are_refused(videos, tmp_path, monkeypatch):
    output = tmp_path / "out.json"
    run(videos, output)
    before = {name: (stage_folder(output) / name).read_bytes() for name in files(stage_folder(output))}
    made = output.read_bytes()

    def fail(*arguments):
        raise AssertionError("a finished stage must not be done again")

    with monkeypatch.context() as patch:
        patch.setattr("longvale.annotation.video_stages.open_video", fail)
        run(videos, output)
    assert output.read_bytes() == made
    assert {name: (stage_folder(output) / name).read_bytes() for name in files(stage_folder(output))} == before
    with pytest.raises(ValueError, match="made with reasoner 'concatenation', not 'another'"):
        run(videos, output, Named())
    run(videos, output, Named(), overwrite=True)
    assert lines(output, "events")[0]["caption"] == "named"


@needs_annotation
def test_a_replaced_video_is_annotated_again_and_named(videos, film, tmp_path, monkeypatch, caplog):
    output = tmp_path / "out.json"
    run(videos, output)
    kept = {stage: [r for r in lines(output, stage) if r["video_id"] == "a"] for stage in STAGES}
    picture = stage_folder(output) / "timelines" / "b.png"
    drawn = picture.read_bytes()
    (videos / "b.mp4").unlink()
    shutil.copyfile(film("one.mp4", 6), videos / "b.mp4")
    (videos / "a.mp4").unlink()
    shutil.copyfile(film("two.mp4", 8), videos / "a.mp4")  # the same content, copied
    killed = RuntimeError("killed")
    with monkeypatch.context() as patch:
        patch.setattr(Stages, "forget", lambda self, ids: self.events.rewrite(lambda r: None) or raise_(killed))
        with pytest.raises(RuntimeError, match="killed"):
            run(videos, output)
    caplog.clear()
    run(videos, output)
    assert f"{stage_folder(output)}: annotated again because the video was replaced: b" in caplog.text
    run(videos, tmp_path / "whole.json")
    assert load_json(output) == load_json(tmp_path / "whole.json")
    for stage in STAGES[:-1]:  # the events were lost in the kill
        assert [r for r in lines(output, stage) if r["video_id"] == "a"] == kept[stage]
    assert picture.read_bytes() != drawn


def raise_(error):
    raise error


@needs_annotation
def test_stages_of_an_earlier_version_are_kept(videos, tmp_path, monkeypatch, caplog):
    output = tmp_path / "out.json"
    run(videos, output)
    path = stage_folder(output) / "videos.jsonl"
    before = path.read_bytes()
    old = [{k: v for k, v in record.items() if k != "identity"} for record in lines(output, "videos")]
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    monkeypatch.setattr("longvale.annotation.video_stages.open_video", lambda path: raise_(AssertionError("again")))
    run(videos, output)
    assert "2 videos were annotated without the identity of their files" in caplog.text
    assert sorted(lines(output, "videos"), key=str) == sorted(map(json.loads, before.splitlines()), key=str)
    caplog.clear()
    run(videos, output)
    assert not caplog.text


@needs_annotation
def test_captions_of_two_wordings_are_reported(videos, tmp_path, caplog):
    """Those of an earlier version, which found no facts, beside those of this one; not if all are of one version."""
    output = tmp_path / "out.json"
    run(videos, output)
    assert "wordings" not in caplog.text
    records = lines(output, "captions")
    for earlier, reported in ((1, True), (len(records), False)):
        old = [{k: v for k, v in r.items() if k != "facts" or n >= earlier} for n, r in enumerate(records)]
        (stage_folder(output) / "captions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
        caplog.clear()
        run(videos, output)
        message = f"{output}: captions of two wordings: an earlier version of longvale described 1 of 4 events"
        assert [message in caplog.text, "wordings" in caplog.text] == [reported] * 2


class Named:
    name = "another"

    def __call__(self, evidence):
        from longvale.annotation.correlation import Correlation

        return Correlation("named")


@needs_annotation
def test_bad_videos_do_not_stop_the_batch(film, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    os.link(film("good.mp4", 8), folder / "good.mp4")
    os.link(film("short.mp4", 2), folder / "short.mp4")
    os.link(film("silent.mp4", 6, sound=False), folder / "silent.mp4")
    os.link(film("heard.mp4", 6, picture=False), folder / "heard.mp4")
    (folder / "broken.mp4").write_bytes(b"not a video at all")
    (folder / "empty.mp4").write_bytes(b"")
    whole = film("good.mp4", 8).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    output = tmp_path / "out.json"
    summary = run(folder, output)
    made = load_annotations(output)
    assert set(made) == {"good", "short", "silent", "heard"}
    told = {record["video_id"]: record for record in lines(output, "videos")}
    assert told["broken"]["rejections"][0]["filter"] == "readable"
    assert "not a media file" in told["broken"]["rejections"][0]["reason"]
    assert "empty" in told["empty"]["rejections"][0]["reason"] and "truncated" in told["cut"]["rejections"][0]["reason"]
    assert str(summary).startswith("4 of 7 videos annotated")
    assert output.with_suffix(".funnel.png").read_bytes()[:4] == b"\x89PNG"
    events = {r["video_id"]: r for r in reversed(lines(output, "events"))}
    assert events["silent"]["modalities"] == ["visual"] and events["silent"]["relation"] == "visual-only"
    assert events["heard"]["modalities"] == ["audio"] and events["heard"]["relation"] == "audio-only"
    assert all(a.events[0].start == 0 and a.events[-1].end <= a.duration + 0.5 for a in made.values())


@needs_annotation
def test_three_hours_are_refused_by_the_header_and_short_ones_by_the_published_thresholds(film, tmp_path, monkeypatch):
    from longvale.annotation import video_stages
    from longvale.models.media import MediaInfo

    video = film("good.mp4", 8)
    monkeypatch.setattr(video_stages, "open_video", lambda path: pytest.fail("must not be decoded"))
    monkeypatch.setattr(video_stages, "probe", lambda path: MediaInfo(10_800.0, True, True))
    with pytest.raises(
        ValueError, match=r"no video was admitted \(1 given\): good: too long \(10800.0, threshold 7200.0\)"
    ):
        run(video, tmp_path / "long.json")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"good: too short \(8.0, threshold 30.0\)"):
        run(video, tmp_path / "short.json", options=AnnotationOptions(filters=FilterOptions()))
    (record,) = lines(tmp_path / "short.json", "videos")
    assert [r["filter"] for r in record["rejections"]] == ["duration", "resolution"]
    assert not (tmp_path / "short.json").exists()


def test_wrong_calls_are_named(videos, tmp_path, longvale):
    for arguments, message in (
        ([tmp_path / "gone.mp4", "--output", tmp_path / "o.json"], "gone.mp4: no such file or directory"),
        ([videos, "--output", tmp_path / "o.json", "--admission", "some"], "--admission must be all or published"),
        ([videos, "--output", tmp_path / "o.json", "--detector", "eyes"], "detector must be one of content"),
        ([videos, "--output", tmp_path / "o.json", "--video-captioner", "server:m"], "give the URL of the server"),
    ):
        result = longvale("annotate", *arguments)
        assert result.exit_code == 2 and result.stdout == ""
        assert message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "o.json").exists() and not (tmp_path / "o.stages").exists()


def reasoner(server, **options):
    chat = ChatClient("m", server.url, sleep=lambda seconds: None, timeout_s=5, **{"retries": 1, **options})
    return LanguageModelReasoner(chat, attempts=2)


@needs_annotation
def test_a_server_that_dies_stops_the_run_which_then_goes_on(videos, tmp_path, online):
    """Four events, of each a caption and a relation are asked for; the server dies after two, which are kept."""
    output, server = tmp_path / "out.json", Server(GOOD, GOOD, GOOD, GOOD, 500)
    first = reasoner(server)
    with pytest.raises(ServerError, match="start the server and run the same command again"):
        run(videos, output, first)
    server.stop()
    assert not output.exists() and len(lines(output, "events")) == 2
    again = Server(GOOD)
    same = reasoner(again)
    same.name = first.name  # the port of the test's second server is another
    run(videos, output, same)
    again.stop()
    records = lines(output, "events")
    assert len(again.asked) == 4 and len(records) == 4
    assert len({(r["video_id"], r["event_id"]) for r in records}) == 4
    assert all(r["relations"] == ["complementary"] and r["refused"] is None for r in records)
    assert "Something is seen and heard." in again.asked[-2]["messages"][0]["content"]  # it knows the previous event


@needs_annotation
def test_garbage_is_refused_an_event_at_a_time(videos, tmp_path, online):
    server = Server("garbage", "garbage", GOOD)
    summary = run(videos, tmp_path / "out.json", reasoner(server))
    server.stop()
    records = lines(tmp_path / "out.json", "events")
    assert [r["refused"] is None for r in records] == [False, True, True, True]
    assert summary.refused == 1 and "1 of them without correlation" in str(summary)
    told = load_json(tmp_path / "out.provenance.json")
    assert told["refused"] == {"it holds no JSON object": 1} and told["relations"] == {"complementary": 3}
    assert set(told["relations"]) <= set(RELATIONS)


@needs_annotation
def test_refusals_in_a_row_end_the_run_with_the_reason(videos, tmp_path, online, capsys):
    """Four events that a model writes nothing usable about: it is not asked about the fourth."""
    server = Server("garbage")
    with pytest.raises(NoAnswer) as error:
        models = AnnotationModels(reasoner=reasoner(server))
        annotate([videos], tmp_path / "out.json", models=models, max_refusals=3)
    server.stop()
    assert len(server.asked) == 6  # two attempts about three events
    told = str(error.value)
    assert re.match(r"b: event 1, 0\.0 to \d+\.\d s \(\d+ s\): language model: 3 answers in a row cannot be used", told)
    assert "it holds no JSON object" in told and "--language-model" in told and "--max-refusals" in told
    assert len(lines(tmp_path / "out.json", "events")) == 2 and not (tmp_path / "out.json").exists()
    progress = capsys.readouterr().err
    assert "a: event 1 of 2, 0.0 to 4.8 s" in progress and "a: event 2 of 2, 4.8 to 8.0 s" in progress
    assert "no usable answer of the language model: it holds no JSON object" in progress


class Silent:
    """A captioner whose model writes reasoning alone, `times` times."""

    name, size = "silent", 48

    def __init__(self, times):
        self.times = times

    def __call__(self, clip):
        self.times -= 1
        if self.times >= 0:
            raise NoAnswer("m: only reasoning and no answer")
        return "It hums."


@needs_annotation
def test_a_caption_that_was_not_written_is_counted(videos, tmp_path):
    captioners = {**template_captioners(), "audio": Silent(2)}
    summary = annotate([videos], tmp_path / "out.json", models=AnnotationModels(captioners=captioners), progress=False)
    captions = lines(tmp_path / "out.json", "captions")
    assert [record["captions"]["audio"] for record in captions] == ["", "", "It hums.", "It hums."]
    missing = {"audio": "m: only reasoning and no answer"}
    assert [record.get("unanswered") for record in captions] == [missing, missing, None, None]
    assert summary.uncaptioned == 2 and "2 without a caption of some modality" in str(summary)
    assert load_json(tmp_path / "out.provenance.json")["uncaptioned"] == {"audio": 2}
    captioners["audio"] = Silent(9)
    with pytest.raises(NoAnswer, match=r"captioner: 2 answers in a row .*only reasoning.*--max-tokens"):
        models = AnnotationModels(captioners=captioners)
        annotate([videos], tmp_path / "other.json", models=models, max_refusals=2, progress=False)
    assert len(lines(tmp_path / "other.json", "captions")) == 1


@needs_annotation
def test_several_videos_at_a_time_give_the_same(videos, tmp_path):
    run(videos, tmp_path / "one.json")
    run(videos, tmp_path / "two.json", concurrency=2)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.slow
@needs_annotation
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_killed_in_the_middle_it_goes_on(videos, tmp_path, online):
    def hang(handler):
        time.sleep(60)

    output, server = tmp_path / "out.json", Server(GOOD, GOOD, hang)
    command = [sys.executable, "-m", "longvale", "annotate", str(videos), "--output", str(output), "--quiet"]
    command += ["--language-model", "m", "--server", server.url]
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "0"}, stderr=subprocess.DEVNULL)
    log = stage_folder(output) / "events.jsonl"
    for _ in range(1200):
        if log.exists() and len(server.asked) >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with log.open("a") as file:
        file.write('{"video_id": "a", "eve')  # what a kill may leave
    server.script[:] = [GOOD]
    chat = ChatClient("m", server.url)
    run(videos, output, LanguageModelReasoner(chat))
    server.stop()
    assert [(r["video_id"], r["event_id"]) for r in lines(output, "events")] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_stage_logs_are_read_strictly(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"video_id": "a", "cuts": [1]}\n{"video_id": "a", "cuts": [2]}\n')
    with pytest.raises(ValueError, match=r"s.jsonl: line 2: repeats \('a',\) with another value; delete the line"):
        StageLog(path, ("video_id",))
    # What two runs at once have left: the same, in another time.
    path.write_text('{"video_id": "a", "cuts": [1], "seconds": 1.5}\n{"video_id": "a", "cuts": [1], "seconds": 2.5}\n')
    assert StageLog(path, ("video_id",)).get("a")["cuts"] == [1]
    path.write_text("[]\n")
    with pytest.raises(ValueError, match=r"s.jsonl: line 1: must be an object with video_id"):
        StageLog(path, ("video_id",))
    path.write_text('{"video_id": "a"}\n{"video')
    log = StageLog(path, ("video_id",))
    assert path.read_text() == '{"video_id": "a"}\n{"video' and log.get("a")  # another run may be writing it
    with pytest.raises(ValueError, match="is there already"):
        log.add({"video_id": "a"})
    log.add({"video_id": "b"})
    log.add({"video_id": "c"})
    assert path.read_text() == '{"video_id": "a"}\n{"video_id": "b"}\n{"video_id": "c"}\n'
    path.write_text('{"video')
    StageLog(path, ("video_id",)).add({"video_id": "a"})
    assert path.read_text() == '{"video_id": "a"}\n'


@needs_annotation
def test_names_of_any_bytes_and_links_to_nothing_stop_nothing(film, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    names = ["a", os.fsdecode(b"bad\xff"), "x" * 251]
    for name in names:
        os.link(film("two.mp4", 8), folder / f"{name}.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "nothing")
    output = tmp_path / "out.json"
    summary = run(folder, output)
    assert set(summary.annotations) == set(load_annotations(output)) == set(names)
    ((reason,),) = [rejections for rejections in summary.rejections.values() if rejections]
    assert "gone.mp4" in reason.reason
    assert {f"timelines/{name}.png" for name in names} <= files(stage_folder(output))
