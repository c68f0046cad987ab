"""What is done already, in files."""

from longvale.annotation.stages import Stages


def test_records_of_all_stages_come_back_by_video(tmp_path):
    stages = Stages.load(tmp_path)
    assert stages.by_video() == {}
    made = {"videos": [{"video_id": "a", "admitted": True}], "captions": [{"video_id": "a", "event_id": 0}]}
    stages.add(made)
    stages.add({"videos": [{"video_id": "b", "admitted": False}]})
    again = Stages.load(tmp_path)
    assert again.by_video() == {"a": made, "b": {"videos": [{"video_id": "b", "admitted": False}]}}
    assert [name for name, _ in again] == ["videos", "tracks", "boundaries", "captions", "events"]
    assert again.captions.get("a", 0) == {"video_id": "a", "event_id": 0}
