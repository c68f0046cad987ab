"""What a push sends, with a stand-in for the Hub."""

import huggingface_hub
import pytest

from longvale.data.publish.prepare import prepare
from longvale.hub import plan_upload, push


class FakeApi:
    """Records what it is asked; `error` is raised instead where given."""

    calls: tuple = ()
    error = token = None

    def __init__(self, token=None):
        FakeApi.token = token

    def create_repo(self, repo_id, **options):
        if self.error:
            raise self.error
        FakeApi.calls += (("create", repo_id, options),)

    def upload_folder(self, **options):
        FakeApi.calls += (("upload", options),)
        return type("Commit", (), {"commit_url": "https://hf.co/datasets/me/longvale/commit/1"})


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "calls", ())
    return FakeApi


@pytest.fixture
def prepared(tiny_corpus, tmp_path):
    prepare(tiny_corpus, tmp_path / "longvale", progress=False)
    return tmp_path / "longvale"


def test_dry_run_tells_and_sends_nothing(longvale, prepared, api):
    result = longvale("push-dataset", prepared, "me/longvale", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "events/test-00000-of-00001.parquet" in result.stdout
    assert "to https://hf.co/datasets/me/longvale\nnothing sent: --dry-run" in result.stdout
    assert not api.calls


def test_push(longvale, prepared, api):
    (prepared / ".cache").mkdir()
    (prepared / ".cache" / "secret").write_text("x")
    result = longvale("push-dataset", prepared, "me/longvale", "--private")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("commit/1\n")
    (create, repo, options), (upload, sent) = api.calls
    assert (create, repo, options["repo_type"], options["private"]) == ("create", "me/longvale", "dataset", True)
    assert upload == "upload" and sent["folder_path"] == prepared and "SHA256SUMS" in sent["allow_patterns"]
    assert not any("secret" in name for name in sent["allow_patterns"]) and api.token is None


def test_the_token_of_a_run_is_used(prepared, api):
    push(plan_upload(prepared, "me/longvale", "dataset"), token="hf_mine")
    assert api.token == "hf_mine" and len(api.calls) == 2


def test_bad_input_is_refused(longvale, prepared, api, tmp_path, monkeypatch):
    from huggingface_hub.errors import HTTPError

    (tmp_path / "empty").mkdir()
    for arguments, told in (
        (["nowhere", "me/x"], "SHA256SUMS: no such file"),
        ([prepared, "me/my data"], "repository 'me/my data'"),
    ):
        result = longvale("push-dataset", *arguments)
        assert result.exit_code == 2 and told in result.stderr, result.output
    with pytest.raises(FileNotFoundError, match="it is the card"):
        plan_upload(tmp_path / "empty", "me/x", "model")
    (tmp_path / "outside").write_text("x")
    (prepared / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="leads out of the folder"):
        plan_upload(prepared, "me/x", "dataset")
    (prepared / "link").unlink()
    assert not api.calls
    monkeypatch.setattr(api, "error", HTTPError("no\nroute"))
    with pytest.raises(ConnectionError, match=r"me/x: the Hub did not take it.*\(no route\)"):
        push(plan_upload(prepared, "me/x", "dataset"))
