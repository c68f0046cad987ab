import json

import numpy as np
import pytest

from longvale.features.store import save_features

EVENTS = {
    "vid-a": (60.0, [(0.0, 12.5, ("visual",)), (10.0, 30.0, ("audio",)), (30.0, 59.0, ("speech",))]),
    "vid-b": (20.0, [(2.0, 8.0, ("visual", "audio"))]),
    "vid-empty": (10.0, []),
    "vid-c": (100.0, [(0.0, 50.0, ("audio",)), (50.0, 100.0, ())]),
}


@pytest.fixture
def data(tmp_path):
    """A data set of four videos, one without events, with stored features and events.jsonl."""
    folder = tmp_path / "data"
    folder.mkdir()
    annotations, lines = {}, []
    for number, (video_id, (duration, events)) in enumerate(EVENTS.items()):
        annotations[video_id] = {
            "duration": duration,
            "timestamps": [[start, end] for start, end, _ in events],
            "sentences": [f"Event {index} of <video> & <i>{video_id}</i> $x$." for index in range(len(events))],
        }
        for start, end, modalities in events:
            lines.append({"video_id": video_id, "start": start, "end": end, "modalities": list(modalities)})
        features = {"visual": np.full((3, 4), number + 1.0), "audio": np.full((2, 4), 0.5), "speech": None}
        save_features(folder / "features", video_id, features)
    (folder / "longvale-annotations-eval.json").write_text(json.dumps(annotations))
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
