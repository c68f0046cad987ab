"""The folder that makes a Space of the page."""

import runpy
from importlib.metadata import requires, version
from pathlib import Path

import httpx
import pytest
from huggingface_hub import RepoCard
from packaging.requirements import Requirement

SPACE = Path(__file__).resolve().parents[2] / "space"


def test_its_card_is_one_that_the_hub_takes():
    card = RepoCard.load(SPACE / "README.md", repo_type="space").data.to_dict()
    assert card["sdk"] == "gradio" and (SPACE / card["app_file"]).is_file()
    assert {card["colorFrom"], card["colorTo"]} <= {
        "red",
        "yellow",
        "green",
        "blue",
        "indigo",
        "purple",
        "pink",
        "gray",
    }
    assert len(card["short_description"]) <= 60
    (wanted,) = {r.specifier for r in map(Requirement, requires("longvale")) if r.name == "gradio"}
    assert card["sdk_version"] in wanted and version("gradio") in wanted
    assert (SPACE / "requirements.txt").read_text().split() == ["longvale[app]"]


@pytest.mark.slow
def test_it_serves_the_model_that_it_is_told(tiny_model, monkeypatch, capsys):
    def visit():
        url = capsys.readouterr().out.split()[-1].replace("0.0.0.0", "127.0.0.1")
        assert "Up to 9 MB and 30 seconds." in httpx.get(f"{url}/config", trust_env=False).text

    monkeypatch.setattr("longvale.system.interruption.wait_for_end", visit)
    monkeypatch.setenv("LONGVALE_MODEL", str(tiny_model))
    monkeypatch.setenv("LONGVALE_MAX_SIZE_MB", "9")
    monkeypatch.setenv("LONGVALE_MAX_LENGTH_S", "30")
    runpy.run_path(str(SPACE / "app.py"))
    monkeypatch.delenv("LONGVALE_MODEL")
    with pytest.raises(SystemExit, match="set the variable LONGVALE_MODEL"):
        runpy.run_path(str(SPACE / "app.py"))
