"""Stages as `longvale annotate` leaves them, of one video of 32 s."""

import json

BOUNDARIES = {
    "video_id": "clip",
    "duration": 32.0,
    "cuts": [22.5],
    "visual": [[0.0, 22.5], [22.5, 32.0]],
    "audio": [[3.2, 9.6]],
    "speech": [],
    "events": [[0.0, 22.5], [22.5, 32.0]],
}
EVENTS = [
    {
        "video_id": "clip",
        "event_id": 1,
        "start": 22.5,
        "end": 32.0,
        "caption": "B.",
        "modalities": [],
        "relation": None,
    },
    {
        "video_id": "clip",
        "event_id": 0,
        "start": 0.0,
        "end": 22.5,
        "caption": "A <b>.",
        "modalities": ["visual", "audio"],
        "relation": "causality",
        "relations": ["causality"],
        "refused": None,
    },
]
CAPTIONS = [
    {
        "video_id": "clip",
        "event_id": 0,
        "captions": {"video": "A ring.", "audio": "A bell.", "speech": ""},
        "measured": {"motion": 3.2, "colours": ["grey", "red"]},
    }
]


TRACKS = [
    {"video_id": "clip", "track": "sounds", "spans": [{"start": 3.0, "end": 9.0, "text": "Bell", "score": 0.9}]},
    {"video_id": "clip", "track": "text", "spans": [{"start": 1.0, "end": 5.5, "text": "THE <END>"}]},
    {"video_id": "clip", "track": "speakers", "spans": [], "unanswered": "it fails"},
]


def write(folder, boundaries=(BOUNDARIES,), events=tuple(EVENTS), captions=tuple(CAPTIONS), tracks=tuple(TRACKS)):
    folder.mkdir(exist_ok=True)
    written = {"boundaries": boundaries, "events": events, "captions": captions, "tracks": tracks}
    for name, lines in written.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
