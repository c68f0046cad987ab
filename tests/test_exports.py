import csv
import io
import json
import re

import pytest

from longvale.events import Annotation, Event, load_annotations
from longvale.exports import export_files, exporter_of, save_events, to_activitynet, to_csv, to_srt, to_webvtt
from longvale.registry import exporters

HOSTILE = Annotation(
    "clip",
    7300.0,
    (
        Event(3725.5, 7300.0, "Late <b>& loud</b> --> end", ("visual", "audio")),
        Event(0, 4.7, 'A "bell",\n\nrings.', ("audio",)),
        Event(2.0, 2.0001, "=1+1", ()),
        Event(2.0, 9.0, "", ("speech",)),
    ),
)


def parse_cues(text, point):
    """Cues as a player reads them: blocks between blank lines, the times on the line that holds the arrow."""
    clock = rf"(\d\d+):([0-5]\d):([0-5]\d)\{point}(\d{{3}})"
    cues = []
    for block in re.split(r"\n\n+", text.strip()):
        lines = block.split("\n")
        if lines == ["WEBVTT"]:
            continue
        match = re.fullmatch(f"{clock} --> {clock}", lines[1])
        assert match, block
        h, m, s, ms, *end = map(int, match.groups())
        times = [h * 3600 + m * 60 + s + ms / 1000, end[0] * 3600 + end[1] * 60 + end[2] + end[3] / 1000]
        assert "-->" not in "".join(lines[2:]) and len(lines) <= 3
        cues.append((lines[0], *times, "".join(lines[2:])))
    return cues


def test_webvtt_is_read_as_it_was_meant():
    text = to_webvtt(HOSTILE)
    assert text.startswith("WEBVTT\n\n")
    cues = parse_cues(text, ".")
    assert [(n, s, e) for n, s, e, _ in cues] == [
        ("1", 0.0, 4.7),
        ("2", 2.0, 2.001),  # a cue must end after it starts
        ("3", 2.0, 9.0),
        ("4", 3725.5, 7300.0),
    ]
    assert cues[0][3] == 'A "bell", rings.'
    assert cues[3][3] == "Late &lt;b&gt;&amp; loud&lt;/b&gt; --&gt; end"


def test_srt():
    cues = parse_cues(to_srt(HOSTILE), ",")
    assert [cue[0] for cue in cues] == ["1", "2", "3", "4"]
    assert cues[3][1:] == (3725.5, 7300.0, "Late <b>& loud</b> -> end")
    assert to_srt(Annotation("clip", 1.0)) == ""


def test_activitynet_results():
    results = json.loads(to_activitynet(HOSTILE))
    assert set(results) == {"version", "results", "external_data"}
    assert results["results"]["clip"][1] == {"sentence": 'A "bell",\n\nrings.', "timestamp": [0, 4.7]}
    assert set(results["external_data"]) == {"used", "details"}


def test_csv_keeps_texts_and_runs_no_formula():
    rows = list(csv.DictReader(io.StringIO(to_csv(HOSTILE))))
    assert [row["caption"] for row in rows] == [HOSTILE.events[0].caption, HOSTILE.events[1].caption, "'=1+1", ""]
    assert rows[0]["modalities"] == "visual;audio" and float(rows[0]["start"]) == 3725.5


def test_official_json_round_trip(tmp_path):
    save_events(HOSTILE, tmp_path / "events.json")
    (loaded,) = load_annotations(tmp_path / "events.json").values()
    assert loaded.to_official() == HOSTILE.to_official()


def test_every_format_has_its_file(tmp_path):
    files = {file["name"]: file for file in export_files(HOSTILE)}
    assert sorted(files) == ["clip.activitynet.json", "clip.csv", "clip.json", "clip.srt", "clip.vtt"]
    for exporter in exporters.load_all():
        path = tmp_path / f"x{exporter.suffix}"
        save_events(HOSTILE, path)
        assert path.read_text() == exporter(HOSTILE) == files[f"clip{exporter.suffix}"]["text"]


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"events.doc: unknown format; end its name in .json, .vtt"):
        exporter_of("events.doc")
    with pytest.raises(ValueError, match="unknown format"):
        save_events(HOSTILE, tmp_path / "events")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "\uff0d1",
        "\uff201",
        "+1",
        "-1",
        "@A1",
        "\t=1",
        "\r=1",
        "\n=1",
        "\r\n=1",
        " =1",
        "\ufeff=1",
        "\u200b=1",
        "\0=1",
        "\uff1d1",
        "\uff0b1",
    ],
)
def test_no_cell_begins_as_a_formula(text):
    text = to_csv(Annotation("a", 9.0, (Event(0, 1, text),)))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["caption"].startswith("'")


def test_a_lone_carriage_return_begins_no_row():
    text = to_csv(Annotation("a", 9.0, (Event(0, 1, "A bell\r=cmd()\r\nrings"), Event(1, 2, "plain - text"))))
    assert "\r" not in text
    assert [row["caption"] for row in csv.DictReader(io.StringIO(text, newline=""))] == [
        "A bell\n=cmd()\nrings",
        "plain - text",
    ]


@pytest.mark.parametrize("arrow", ["-->", "--->", "------>", "-- >-->"])
def test_no_caption_of_subtitles_holds_the_arrow_of_their_times(arrow):
    annotation = Annotation("a", 9.0, (Event(0, 1, f"One {arrow} two\r\r\n\u2028\x85 three & <four>"),))
    for write, point in ((to_srt, ","), (to_webvtt, ".")):
        assert len(parse_cues(write(annotation), point)) == 1
