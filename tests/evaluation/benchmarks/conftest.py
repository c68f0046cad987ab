"""Small files in the official forms."""

import json

import numpy as np
import pytest

from longvale.features.store import save_features

#: Of MUSIC-AVQA: video, type, question, what fills it, answer.
MUSIC = [
    ("00000093", ["Audio-Visual", "Counting"], "How many <Object> are sounding?", ["acoustic_guitar"], "two"),
    ("00000093", ["Audio", "Comparative"], "Is the <Object> louder than the <Object>?", ["flute", "drum"], "no"),
    ("00000101", ["Visual", "Location"], "Where is the performance?", [], "indoor"),
    ("00000093", ["Audio-Visual", "Existential"], "Which is the <FL> sound?", ["first"], "acoustic_guitar"),
    ("00000101", ["Audio", "Counting"], "How many instruments are heard?", [], "more than ten"),
]
TURNS = [("is it day ?", "yes it is day"), ("who is there ?", "a man is there"), ("does he speak ?", "no he does not")]


@pytest.fixture
def music(tmp_path):
    """A folder with a test file of MUSIC-AVQA and features of its videos."""
    folder = tmp_path / "music"
    folder.mkdir()
    rows = [
        {
            "video_id": video_id,
            "question_id": 100 + number,
            "type": json.dumps(kind),
            "question_content": content,
            "templ_values": json.dumps(values),
            "question_deleted": 0,
            "anser": answer,
        }
        for number, (video_id, kind, content, values, answer) in enumerate(MUSIC)
    ]
    (folder / "avqa-test.json").write_text(json.dumps(rows))
    _add_features(folder, {row[0] for row in MUSIC})
    return folder


@pytest.fixture
def avsd(tmp_path):
    """A folder with files of AVSD: validation with all answers, test with the last one undisclosed and references."""
    folder = tmp_path / "avsd"
    folder.mkdir()
    turns = [{"question": question, "answer": answer} for question, answer in TURNS]
    dialogs = [{"image_id": name, "caption": "c", "summary": "s", "dialog": turns} for name in ("7UPGT", "AB12C")]
    (folder / "valid_set4DSTC7-AVSD.json").write_text(json.dumps({"dialogs": dialogs}))
    hidden = [*turns[:-1], {**turns[-1], "answer": "__UNDISCLOSED__"}]
    tests = [{**dialog, "dialog": hidden} for dialog in dialogs]
    (folder / "test_set4DSTC7-AVSD.json").write_text(json.dumps({"dialogs": tests}))
    images = [{"id": 1, "name": "7UPGT_3"}, {"id": 2, "name": "AB12C_3"}]
    captions = [(1, "no he does not"), (1, "he never speaks"), (2, "no , not a word"), (2, "he is silent")]
    annotations = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(captions)]
    path = folder / "test_set4DSTC7-AVSD_multiref.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    _add_features(folder, {"7UPGT", "AB12C"})
    return folder


def _add_features(folder, video_ids):
    for video_id in video_ids:
        features = {"visual": np.ones((3, 4)), "audio": np.ones((2, 4)), "speech": None}
        save_features(folder / "features", video_id, features)
