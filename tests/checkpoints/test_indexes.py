"""File names in a checkpoint's JSON stay in its folder."""

import json
import shutil

import pytest

from longvale.checkpoints.loading import check_indexes, file_of, load_checkpoint
from longvale.checkpoints.official import _base_files
from longvale.models.modeling_longvale import LongVALEModel

LEAVING = ["../a.safetensors", "x/../../a.safetensors", "/etc/passwd", "//a/b", "C:\\a", "C:/a", "a\\b", "", "a\0b"]


@pytest.mark.parametrize("name", LEAVING)
def test_names_that_leave_the_folder_are_refused(tmp_path, tiny_model, name):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    message = "model.safetensors.index.json: .* is not a file of this folder"
    for read in (check_indexes, _base_files):
        with pytest.raises(ValueError, match=message):
            read(model)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(model, LongVALEModel, device="cpu")


def test_links_may_not_leave_but_for_the_blobs_of_the_hubs_cache(tmp_path):
    folder, outside = tmp_path / "model", tmp_path / "secret"
    folder.mkdir()
    outside.write_text("secret")
    (folder / "a").symlink_to(outside)
    with pytest.raises(ValueError, match="x: 'a' is not a file of this folder"):
        file_of(folder, "a", "x")
    (folder / "b").write_text("")
    (folder / "c").symlink_to("b")
    assert file_of(folder, "c", "x") == folder / "c"
    snapshot, blob = tmp_path / "hub/models--me/snapshots/1234", tmp_path / "hub/models--me/blobs/5678"
    for path in (snapshot, blob.parent):
        path.mkdir(parents=True)
    blob.write_text("")
    (snapshot / "a").symlink_to("../../blobs/5678")
    assert file_of(snapshot, "a", "x") == snapshot / "a"
    (snapshot / "b").symlink_to("../../../../secret")
    with pytest.raises(ValueError, match="is not a file of this folder"):
        file_of(snapshot, "b", "x")


@pytest.mark.parametrize("content", ["[]", '{"weight_map": 5}', "{", "[" * 100_000])
def test_damaged_indexes_are_named(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"model.safetensors.index.json: (has no weight_map|not JSON)"):
        check_indexes(tmp_path)
