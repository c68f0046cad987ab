"""Annotation on a Ray cluster of this machine gives what the local engine gives, also when an actor dies."""

import json
import os
import signal
import subprocess
import sys

import pytest
from needs import needs

from longvale.annotation.pipeline import annotate, stage_folder
from longvale.events import load_annotations

#: A run of two actors in a process of its own. A captioner sees to it that the actor is killed at the first event of
#: `victim`, once; and that a server fails at the second event of the video "z", if asked to.
SCRIPT = """
import os, signal, sys
from pathlib import Path


class Deadly:
    name = "deadly"

    def __init__(self, marker, failing):
        self.marker, self.failing = marker, failing

    def __call__(self, evidence):
        from longvale.annotation.correlation import Concatenation
        from longvale.chat_client import ServerError

        if not Path(self.marker).exists():
            Path(self.marker).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        if self.failing and evidence.previous:
            raise ServerError("http://localhost:1: no answer")
        return Concatenation()(evidence)


def main():
    videos, output, marker, failing = sys.argv[1:]
    from longvale.annotation.pipeline import AnnotationModels, annotate
    from longvale.chat_client import ServerError

    models = AnnotationModels(reasoner=Deadly(marker, failing == "yes"))
    try:
        summary = annotate([videos], output, models=models, engine="ray", concurrency=2, progress=False)
        print("result", os.getpid(), summary)
    except ServerError as error:
        print("result", os.getpid(), error)


main()
"""


def run(script, *arguments):
    command = [str(part) for part in (sys.executable, script, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Ray may print its own lines before and after.
    return next(line.split(" ", 2)[1:] for line in done.stdout.splitlines() if line.startswith("result "))


def records(output, stage):
    lines = [json.loads(line) for line in (stage_folder(output) / f"{stage}.jsonl").read_text().splitlines()]
    return sorted(({**line, "seconds": 0} for line in lines), key=lambda r: (r["video_id"], r.get("event_id", 0)))


def test_without_ray_the_engine_is_refused(film, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'longvale\[ray\]'"):
        annotate([film("a.mp4", 4)], tmp_path / "out.json", engine="ray", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"engine": "spark"}, "engine must be one of local, ray, not 'spark'"), ({"concurrency": 0}, "must be 1 or more")],
)
def test_engine_and_concurrency_are_checked(film, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        annotate([film("a.mp4", 4)], tmp_path / "out.json", progress=False, **options)
    assert not stage_folder(tmp_path / "out.json").exists()


@needs("ray", "scenedetect", "silero_vad")
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_an_actor_that_is_killed_and_a_server_that_fails_cost_nothing(film, tmp_path):
    folder, script, marker = tmp_path / "videos", tmp_path / "script.py", tmp_path / "killed"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        os.link(film("two.mp4", 8), folder / name)
    (folder / "broken.mp4").write_bytes(b"no video")
    script.write_text(SCRIPT)
    local, ray = tmp_path / "local.json", tmp_path / "ray.json"
    expected = annotate([folder], local, progress=False)

    pid, told = run(script, folder, ray, marker, "yes")
    assert told == "http://localhost:1: no answer"
    assert marker.read_text() not in ("", pid)  # an actor was killed, and not the run
    assert not ray.exists() and records(ray, "captions")  # what was done is kept
    kept = (stage_folder(ray) / "boundaries.jsonl").read_bytes()

    pid, told = run(script, folder, ray, marker, "no")
    assert told == str(expected) == "3 of 4 videos annotated, 6 events"
    assert (stage_folder(ray) / "boundaries.jsonl").read_bytes().startswith(kept)
    assert load_annotations(ray) == load_annotations(local)
    for stage in ("videos", "boundaries", "captions", "events"):
        assert records(ray, stage) == records(local, stage)
    assert {path.name for path in (stage_folder(ray) / "timelines").iterdir()} == {"a.png", "b.png", "c.png"}


#: Runs on both engines with a recogniser that tells English where it is loud.
LANGUAGES = """
import os
import sys
from longvale.annotation.boundaries.options import SpeechOptions
from longvale.annotation.captions import template_captioners
from longvale.annotation.filters import FilterOptions
from longvale.annotation.pipeline import AnnotationOptions, AnnotationModels, annotate


class Identifier:
    name, size, languages = "identifier", 48, ("de", "en")

    def __call__(self, clip):
        return ""

    def identify_languages(self, sound):
        loud = min(1.0, 7 * float(abs(sound).mean()))
        return {"en": loud, "de": 1 - loud}


def main():
    folder, local, ray = sys.argv[1:]
    filters = FilterOptions(None, None, None, False, False, None, None, language="en")
    options = AnnotationOptions(filters=filters, speech=SpeechOptions(threshold=0.2))
    models = AnnotationModels(captioners={**template_captioners(), "speech": Identifier()})
    for engine, output in (("local", local), ("ray", ray)):
        summary = annotate([folder], output, options=options, models=models, engine=engine, progress=False)
    print("result", os.getpid(), summary)


main()
"""


@needs("ray", "scenedetect", "silero_vad")
@pytest.mark.slow
def test_the_language_is_told_on_ray_too(tiny_corpus, tmp_path):
    script, local, ray = tmp_path / "script.py", tmp_path / "local.json", tmp_path / "ray.json"
    script.write_text(LANGUAGES)
    run(script, tiny_corpus / "videos", local, ray)
    told = records(ray, "videos")
    assert told == records(local, "videos")
    assert any(record["facts"]["language"] for record in told)
    assert load_annotations(ray) == load_annotations(local)


#: A run in which the file of one video crashes what reads it, each time.
CRASHING = """
import os, signal, sys


class Crashing:
    name, size = "crashing", 48

    def __call__(self, clip):
        if clip.end > 15:  # the longer video
            os.kill(os.getpid(), signal.SIGSEGV)
        return ""


def main():
    from longvale.annotation.captions import template_captioners
    from longvale.annotation.pipeline import AnnotationModels, annotate

    models = AnnotationModels(captioners={**template_captioners(), "visual": Crashing()})
    videos, output = sys.argv[1:]
    summary = annotate([videos], output, models=models, engine="ray", concurrency=2, progress=False)
    print("result", os.getpid(), summary)


main()
"""


@needs("ray", "scenedetect", "silero_vad")
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
def test_a_video_that_crashes_its_process_each_time_fails_alone(film, tmp_path):
    folder, script, output = tmp_path / "videos", tmp_path / "script.py", tmp_path / "out.json"
    folder.mkdir()
    for name, seconds in {"a": 8, "bad": 20, "c": 8}.items():
        os.link(film(f"{name}.mp4", seconds), folder / f"{name}.mp4")
    script.write_text(CRASHING)
    _, said = run(script, folder, output)
    assert said.startswith("2 of 3 videos annotated")
    assert set(load_annotations(output)) == {"a", "c"}
    funnel = "\n".join(json.loads(output.with_suffix(".provenance.json").read_text())["funnel"])
    assert "bad" in funnel or "readable" in funnel
    assert "bad" not in {record["video_id"] for record in records(output, "videos")}  # the next run tries it again
