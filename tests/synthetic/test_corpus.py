"""The synthetic corpus: plans that are the same everywhere, files that hold what the plans say, and resuming."""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.data.dialogues import check_dialogue, fill_timecodes, load_dialogues
from longvale.events import MODALITIES, Event, load_annotations
from longvale.synthetic import corpus as synthetic
from longvale.synthetic.corpus import (
    EventRecord,
    SyntheticOptions,
    instruction_dialogue,
    load_events,
    plan_video,
    synthesize,
    write_video,
)
from longvale.synthetic.instructions import boundary_turns, free_turns
from longvale.synthetic.planning import COLOURS, DURATION_STEP_S, SHAPES, SOUNDS, WORDS

SHORT = SyntheticOptions(size=32, fps=4, min_length_s=5, max_length_s=6, sound_rate=8000)
ids = st.integers(0, 10**6).map(lambda index: f"train_{index:04d}")
grids = st.sampled_from((0, 10, 11, 20, 50, 100))


def test_plans_are_the_same_on_every_machine():
    plan = plan_video("train_0000", seed=0)
    assert plan.annotation.duration == 46.5
    assert [(e.start, e.end, e.caption) for e in plan.annotation.events[:3]] == [
        (2.325, 6.975, "A voice off screen says away."),
        (2.325, 11.625, "A cyan circle slides across the screen."),
        (13.95, 27.9, "A purple ring hits the wall and a chirp starts."),
    ]
    plans = [
        plan_video(f"train_{i:04d}", seed, SyntheticOptions(grid=g))
        for i in range(20)
        for seed in (0, 1)
        for g in (0, 20)
    ]
    digest = hashlib.sha256(json.dumps([p.annotation.to_official() for p in plans]).encode()).hexdigest()
    assert digest[:16] == "51a3d544af936d5c"


def test_seed_and_id_decide():
    plans = {plan_video(name, seed).annotation.events for name in ("a", "b") for seed in (0, 1)}
    assert len(plans) == 4


@given(ids, grids)
@settings(max_examples=200)
def test_lanes_show_one_thing_at_a_time_and_each_thing_once(video_id, grid):
    plan = plan_video(video_id, 0, SyntheticOptions(grid=grid))
    for modality in MODALITIES:
        pieces = [piece for _, piece in plan.lane(modality)]
        assert all(a.end <= b.start for a, b in itertools.pairwise(pieces))
        names = [piece.content.split()[0] for piece in pieces]  # of a shape its colour
        assert len(set(names)) == len(names)
    known = {"visual": {f"{c} {s}" for c in COLOURS for s in SHAPES}, "audio": set(SOUNDS), "speech": set(WORDS)}
    assert all(piece.content in known[piece.modality] for pieces in plan.pieces for piece in pieces)


@given(ids, grids)
@settings(max_examples=200)
def test_events_tell_what_their_pieces_show(video_id, grid):
    plan = plan_video(video_id, 0, SyntheticOptions(grid=grid))
    events, duration = plan.annotation.events, plan.annotation.duration
    assert len({event.caption for event in events}) == len(events)
    assert len({(event.start, event.end) for event in events}) == len(events)
    assert [e.start for e in events] == sorted(e.start for e in events)
    assert duration % DURATION_STEP_S == 0
    for event, pieces in zip(events, plan.pieces, strict=True):
        assert (event.start, event.end) == (min(p.start for p in pieces), max(p.end for p in pieces))
        assert set(event.modalities) == {p.modality for p in pieces}
        assert all(piece.content in event.caption.lower() for piece in pieces)
        assert 0.1 * duration - 0.001 <= event.length <= 0.37 * duration  # 4 of 11 steps at the most uneven grid
        for time in (t for piece in pieces for t in (piece.start, piece.end)):
            steps = time / duration * (grid or 1000 * duration)
            assert abs(steps - round(steps)) < 1e-6 or abs(steps - round(steps)) * duration / grid <= 0.0005
            assert grid != 20 or time * 1000 == pytest.approx(round(time * 1000), abs=1e-6)


@given(ids)
@settings(max_examples=200)
def test_every_video_has_the_kinds_that_the_ablation_needs(video_id):
    events = plan_video(video_id, 0).annotation.events
    modalities = [event.modalities for event in events]
    assert modalities.count(("visual",)) >= 2
    assert modalities.count(("audio",)) >= 1
    assert modalities.count(("speech",)) >= 1
    assert any(len(m) > 1 for m in modalities)
    assert 5 <= len(events) <= 8


def test_all_six_relations_occur_and_follow_their_definition():
    seen = {}
    for index in range(60):
        plan = plan_video(f"v{index}", 0)
        for event, pieces in zip(plan.annotation.events, plan.pieces, strict=True):
            seen[event.relation] = seen.get(event.relation, 0) + 1
            spans = {p.modality: (p.start, p.end) for p in pieces}
            if event.relation == "synchronicity":
                assert spans["visual"] == spans["audio"]
            elif event.relation == "complementary":
                assert spans["visual"] == spans["speech"]
            elif event.relation == "causality":
                assert spans["visual"][1] == spans["audio"][0]
            elif event.relation == "temporal association":
                assert spans["audio"][1] == spans["visual"][0]
    assert set(seen) == {
        "visual-only", "audio-only", "synchronicity", "complementary", "causality", "temporal association"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 63}, "size must be an even number of pixels"),
        ({"size": 64.0}, "size must be a whole number, not 64.0"),
        ({"fps": 0}, "fps must be 1 to 60"),
        ({"min_length_s": 61.0}, "min_length_s .61.0. and max_length_s"),
        ({"min_length_s": 10.1, "max_length_s": 10.2}, "no multiple of 0.5 s"),
        ({"grid": 5}, "grid must be 10 to 100 steps, or 0"),
        ({"sound_rate": 12345}, "sound_rate must be a usual rate"),
        ({"voice": "robot"}, "voice must be 'formant' or 'espeak', not 'robot'"),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticOptions(**change)


@given(ids, st.integers(), st.none() | st.integers(1, 6))
@settings(max_examples=100)
def test_instruction_dialogues_are_official_and_on_the_grid(video_id, seed, turns):
    plan = plan_video(video_id, 0)
    dialogue = instruction_dialogue(plan.annotation, plan.pieces, random.Random(seed), turns)
    check_dialogue(dialogue)
    questions = [turn["value"] for turn in dialogue["conversations"][::2]]
    assert len(questions) == turns if turns else 1 <= len(questions) <= 4
    duration = dialogue["meta"]["duration"]
    assert all(
        (time / duration * 20) == pytest.approx(round(time / duration * 20))
        for time in dialogue["meta"]["token"].values()
    )
    for message in fill_timecodes(dialogue):
        assert all(int(code) % 5 == 0 or code == "99" for code in message["content"].split() if code.isdigit())


def test_free_questions_have_one_answer_a_video():
    for index in range(200):
        plan = plan_video(f"v{index}", 0)
        turns = free_turns(plan.annotation, plan.pieces) + boundary_turns(plan.annotation, random.Random(index))
        asked = [(turn.question, turn.spans) for turn in turns]
        assert len(set(asked)) == len(asked)


def test_free_questions_ask_who_and_why():
    kinds = {}
    for index in range(60):
        plan = plan_video(f"v{index}", 0)
        for turn in free_turns(plan.annotation, plan.pieces):
            for start in ("What makes the sound", "Why does", "Who says", "What happens after", "Which colour"):
                if turn.question.startswith(start):
                    kinds.setdefault(start, set()).add(turn.answer)
    assert all(len(answers) > 5 for answers in kinds.values()), kinds
    assert len(kinds) == 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    counts = synthesize(folder, videos=3, test_videos=2, seed=7, options=SHORT, workers=1, progress=False)
    return folder, counts


def test_corpus_holds_the_official_files(corpus):
    folder, counts = corpus
    train = load_annotations(folder / "longvale-annotations-training.json")
    test = load_annotations(folder / "longvale-annotations-eval.json")
    assert list(train) == ["train_0000", "train_0001", "train_0002"]
    assert list(test) == ["test_0000", "test_0001"]
    records = load_events(folder)
    made = {"train": 3, "test": 2, "rendered": 5, "kept": 0}
    assert counts == made | {"events": len(records), "boundary_perception": 3, "instruction": 9}
    for record in records:
        official = (train if record.split == "train" else test)[record.video_id].events[record.event_id]
        assert (official.start, official.end, official.caption) == (
            record.event.start,
            record.event.end,
            record.event.caption,
        )
        assert record.event.modalities
        assert record.event.relation
        assert record.pieces == plan_video(record.video_id, 7, SHORT).pieces[record.event_id]
    for name in ("longvale-sft-bp.json", "longvale-sft-it.json"):
        assert {dialogue["id"] for dialogue in load_dialogues(folder / name)} == set(train)


def test_videos_last_as_long_as_their_plans(corpus):
    import av

    folder, _ = corpus
    for video_id, annotation in load_annotations(folder / "longvale-annotations-eval.json").items():
        with av.open(str(folder / "videos" / f"{video_id}.mp4")) as container:
            codecs = {stream.type: stream.codec_context.name for stream in container.streams}
            durations = [float(stream.duration * stream.time_base) for stream in container.streams]
        assert codecs == {"video": "h264", "audio": "aac"}
        assert durations == pytest.approx([annotation.duration] * 2, abs=0.001)


def test_second_run_renders_nothing_again_and_more_videos_are_added(corpus):
    folder, _ = corpus
    arguments = {"test_videos": 2, "seed": 7, "options": SHORT, "workers": 1, "progress": False}
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (folder / "videos").iterdir()}
    events = (folder / "events.jsonl").read_bytes()
    (folder / "videos" / "train_0001.mp4").unlink()
    (folder / "videos" / ".train_0001.mp4.killed").mkdir()
    (folder / "videos" / ".train_0001.mp4.killed" / "unfinished").write_text("half")
    counts = synthesize(folder, videos=3, **arguments)
    assert (counts["rendered"], counts["kept"]) == (1, 4)
    assert (folder / "events.jsonl").read_bytes() == events
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (folder / "videos").iterdir()}
    assert {path.name for path in after if after[path] != before.get(path)} == {"train_0001.mp4"}
    counts = synthesize(folder, videos=4, **arguments)
    assert (counts["rendered"], counts["kept"]) == (1, 5)
    with pytest.raises(ValueError, match=r"videos: train_0003\.mp4 is not among the videos asked for"):
        synthesize(folder, videos=3, **arguments)


def test_other_settings_and_foreign_directories_are_refused(corpus, tmp_path):
    folder, _ = corpus
    with pytest.raises(ValueError, match=r"synthetic\.json: was made with seed 7, not 8; give another directory"):
        synthesize(folder, videos=4, seed=8, options=SHORT)
    with pytest.raises(ValueError, match=r"was made with options\.fps \d+, not 5; "):
        synthesize(folder, videos=4, seed=7, options=replace(SHORT, fps=5))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an empty directory"):
        synthesize(tmp_path, videos=1, options=SHORT)
    with pytest.raises(ValueError, match="is not an empty directory"):
        synthesize(tmp_path / "notes.txt", videos=1, options=SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("arguments", [{"videos": 0}, {"videos": 1, "test_videos": 0}, {"videos": 1, "workers": 0}])
def test_wrong_numbers_are_refused_before_anything_is_written(tmp_path, arguments):
    with pytest.raises(ValueError, match="must be a whole number of 1 or more, not 0"):
        synthesize(tmp_path / "corpus", **arguments)
    assert not (tmp_path / "corpus").exists()


def test_missing_espeak_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r"espeakng_loader cannot be imported .*; pip install 'longvale\[voice\]'"):
        synthesize(tmp_path / "corpus", videos=1, options=replace(SHORT, voice="espeak"))
    assert not (tmp_path / "corpus").exists()


def test_a_video_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no sound today")

    monkeypatch.setattr("longvale.synthetic.corpus.render_sound", fail)
    with pytest.raises(RuntimeError, match="no sound today"):
        write_video(plan_video("a", 0, SHORT), tmp_path / "a.mp4", SHORT)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        write_video(plan_video("a", 0, SHORT), tmp_path / "nowhere" / "a.mp4", SHORT)


def test_worker_processes_make_the_same_corpus(tmp_path):
    script = (
        "import sys; from longvale.synthetic.corpus import *\n"
        "if __name__ == '__main__':\n"
        "    options = SyntheticOptions(size=32, fps=2, min_length_s=5, max_length_s=5, sound_rate=8000)\n"
        "    for workers in (1, 2):\n"
        "        synthesize(f'{sys.argv[1]}/{workers}', videos=14, test_videos=2, options=options, workers=workers)\n"
    )
    (tmp_path / "make.py").write_text(script)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, tmp_path / "make.py", tmp_path], check=True, capture_output=True, env=environment)
    one, two = ({p.relative_to(tmp_path / n): p for p in (tmp_path / n).rglob("*.*")} for n in ("1", "2"))
    assert set(one) == set(two)
    assert len(one) == 6 + 16
    assert all(one[name].read_bytes() == two[name].read_bytes() for name in one)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "not JSON"),
        ("[]", "must be an object"),
        ("{}", "field 'start' is missing"),
        (None, "ends .0.0 s. before it starts"),
    ],
)
def test_wrong_event_lines_are_named(tmp_path, line, message):
    plan = plan_video("a", 0)
    good = EventRecord("a", "train", 0, plan.annotation.events[0], plan.pieces[0]).to_json()
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(good) + "\n" + (line or json.dumps(good | {"end": 0.0})) + "\n")
    with pytest.raises(ValueError, match=f"line 2: .*{message}"):
        load_events(path)


def test_missing_and_empty_event_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"events\.jsonl: no such file"):
        load_events(tmp_path)
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no event"):
        load_events(tmp_path)


def test_events_from_windows_are_read_as_any_other(tmp_path):
    record = EventRecord("v", "test", 0, Event(0.0, 3.0, "A bell.", ("audio",), "audio-only"), ())
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record.to_json()).encode() + b"\r\n\r\n")
    assert load_events(path) == [record]


class _Deadly:
    """A plan that kills the process that it is sent to, as the kernel does when memory runs out."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_process_that_dies_is_reported_in_a_line(tmp_path):
    jobs = [(_Deadly(), tmp_path / f"{number}.mp4", SyntheticOptions()) for number in range(2)]
    with pytest.raises(ChildProcessError, match=r"a process that renders videos died; .* fewer than 2 --workers"):
        list(synthetic._run(jobs, 2))
