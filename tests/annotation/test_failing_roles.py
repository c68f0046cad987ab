"""Every role killed, missing, slow or wrong: the run resumes, says what is missing, loses nothing."""

import json
import sys
from pathlib import Path

import failing_roles
import pytest
from chat_server import GOOD, Server, slow
from needs import needs_annotation

from longvale.annotation.captions import ROLES
from longvale.annotation.pipeline import annotate, stage_folder
from longvale.annotation.tracks import TRACKS
from longvale.chat_client import NoAnswer, ServerError

pytestmark = needs_annotation


def lines(output, stage):
    return [json.loads(line) for line in (stage_folder(output) / f"{stage}.jsonl").read_text().splitlines()]


def without_seconds(output):
    return {
        stage: [{name: value for name, value in record.items() if name != "seconds"} for record in lines(output, stage)]
        for stage in ("videos", "tracks", "boundaries", "captions", "events")
    }


@pytest.fixture(scope="module")
def video(film):
    return film("roles.mp4", 8)


@pytest.fixture(scope="module")
def whole(video, tmp_path_factory):
    """What a run without disturbance leaves."""
    output = tmp_path_factory.mktemp("whole") / "out.json"
    annotate([video], output, models=failing_roles.build(), progress=False)
    return output


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_killed_while_each_role_works_the_run_resumes_and_loses_nothing(preloaded, video, whole, tmp_path):
    script, output = str(Path(failing_roles.__file__)), tmp_path / "out.json"
    for role in failing_roles.IN_ORDER:
        done = preloaded.run(script, role, video, output)
        assert done.returncode == -9 and not output.exists(), f"{role}: {done.stderr}"
    done = preloaded.run(script, role, video, output)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == whole.read_bytes() and without_seconds(output) == without_seconds(whole)


def raise_(error):
    raise error


def run_with(video, output, role, first, **options):
    return annotate([video], output, models=failing_roles.build(first, role), progress=False, **options)


#: The checks of spans are the same for all tracks.
FAILURES = [(track, failure) for failure in ("answer", "memory", "nothing") for track in TRACKS]
FAILURES += [("sounds", failure) for failure in failing_roles.WRONG_SPANS]


@pytest.mark.parametrize(("track", "failure"), FAILURES)
def test_a_track_that_fails_is_missing_and_counted(video, tmp_path, track, failure):
    firsts = {
        "answer": lambda: raise_(NoAnswer("m: only reasoning and no answer")),
        "memory": lambda: raise_(RuntimeError("CUDA out of memory.\nTried to allocate")),
        "nothing": lambda: 5,
    }
    output = tmp_path / "out.json"
    first = firsts.get(failure, lambda: [failing_roles.WRONG_SPANS[failure]])
    summary = run_with(video, output, track, first)
    assert summary.missing == {track: 1} and str(summary).endswith(f", 1 videos without {track}")
    provenance = json.loads(output.with_suffix(".provenance.json").read_text())
    assert provenance["missing_tracks"] == {track: 1}
    records = {record["track"]: record for record in lines(output, "tracks")}
    reason = {
        "answer": "m: only reasoning and no answer", "memory": "CUDA out of memory. Tried to allocate",
        "nothing": "returned int instead of spans", "kind": "returned str instead of a span",
        "NaN": "returned a span from nan to 1.0 s", "backwards": "from 2.0 to 1.0 s", "beyond": "from 0.0 to 99.0 s",
        "score": "with a score of nan instead of 0 to 1", "text": "whose text or speaker is not text",
    }[failure]  # fmt: skip
    assert records[track]["spans"] == [] and reason in records[track]["unanswered"]
    for other in set(TRACKS) - {track}:  # and a span beyond the end of the video is cut
        assert records[other]["spans"][1]["end"] <= 8.1 and "unanswered" not in records[other]


@pytest.mark.parametrize("failure", ["answer", "memory", "nothing", "number"])
@pytest.mark.parametrize("role", [role for role in ROLES if role != "speech"])
def test_a_caption_that_fails_is_missing_and_counted(video, tmp_path, role, failure):
    first, reason = {
        "answer": (lambda: raise_(NoAnswer("m: no answer")), "m: no answer"),
        "memory": (lambda: raise_(RuntimeError("CUDA out of memory")), "CUDA out of memory"),
        "nothing": (lambda: b"", "returned bytes, not text"),
        "number": (lambda: 3.5, "returned float, not text"),
    }[failure]
    summary = run_with(video, tmp_path / "out.json", role, first)
    assert summary.uncaptioned == 1
    first_event, *others = lines(tmp_path / "out.json", "captions")
    assert f"It is {role}." not in first_event["captions"][role] and reason in first_event["unanswered"][role]
    assert others and all("unanswered" not in record for record in others)


@pytest.mark.parametrize("role", failing_roles.EMBEDDERS)
def test_embeddings_that_are_no_numbers_end_the_run_with_the_reason(video, whole, tmp_path, role):
    with pytest.raises(ValueError, match=r"stub \(" + role + r"\): returned embeddings that are not finite numbers"):
        run_with(video, tmp_path / "out.json", role, failing_roles.wrong_embedding)
    run_with(video, tmp_path / "out.json", role, None)
    assert (tmp_path / "out.json").read_bytes() == whole.read_bytes()


def test_a_writer_without_a_caption_is_replaced_and_counted(video, tmp_path):
    from longvale.annotation.correlation import Correlation

    summary = run_with(video, tmp_path / "out.json", "reasoner", lambda: Correlation(" "))
    first, *others = lines(tmp_path / "out.json", "events")
    assert summary.refused == 1 and first["refused"] == "stub (reasoner): wrote no caption"
    assert "It is video." in first["caption"] and all(record["refused"] is None for record in others)


@pytest.mark.parametrize("option", ["--video-captioner", "--audio-captioner", "--language-model"])
def test_a_server_that_is_too_slow_ends_the_run_which_resumes(longvale, video, tmp_path, online, option):
    server = Server(slow(20))
    model = "m" if option == "--language-model" else "server:m"
    command = ["annotate", video, "--output", tmp_path / "out.json", option, model, "--server", server.url, "--quiet"]
    done = longvale(*command, "--timeout", 0.3)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "no whole answer within 0.3 s" in done.stderr and not (tmp_path / "out.json").exists()
    server.script[:] = [GOOD]
    done = longvale(*command, "--timeout", 0.3)
    server.stop()
    assert done.exit_code == 0, done.stderr


def test_errors_of_servers_are_not_taken_for_failures_of_one_video(video, tmp_path):
    with pytest.raises(ServerError, match="the server is gone"):
        run_with(video, tmp_path / "out.json", "sounds", lambda: raise_(ServerError("the server is gone")))
    assert not (stage_folder(tmp_path / "out.json") / "tracks.jsonl").exists()
