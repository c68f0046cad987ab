"""Model cards: written with a checkpoint, filled in by an evaluation, sent with the weights."""

import re

import pytest
import yaml
from test_conversion import original  # noqa: F401 (a fixture)

from longvale.checkpoints.card import fill_evaluation
from longvale.checkpoints.conversion import convert
from longvale.checkpoints.push import plan_model


@pytest.fixture(scope="module")
def checkpoint(original, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("card") / "longvale-tiny"
    convert(original, folder, keep_adapters=True)
    return folder


def test_the_card_tells_what_is_there(checkpoint):
    text = (checkpoint / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "transformers" and head["datasets"] == ["ttgeng233/LongVALE"]
    assert "# longvale-tiny" in text and "| language model | llama |" in text
    assert "| visual tower | none: stored features |" in text and "visual_features=v" in text
    assert "Llama 2 Community License" in text and "CC BY-NC-SA 4.0" in text
    assert not re.search(r"\$[a-z]", text)
    licences = (checkpoint / head["license_link"]).read_text(encoding="utf-8")
    assert "Llama 2 Community License" in licences and "Apache License 2.0" in licences


def test_its_example_runs(checkpoint, tmp_path, monkeypatch, capsys):
    """With the folder in place of the name."""
    import numpy as np

    text = (checkpoint / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].replace('"longvale-tiny"', repr(str(checkpoint)))
    assert len(code.splitlines()) <= 12
    features = {"v": np.ones((3, 12)), "a": np.ones((2, 10)), "s": np.ones((1, 14))}
    exec(compile(code.replace("64", "4"), "card", "exec"), features)  # noqa: S102 (the card's own example)
    assert capsys.readouterr().out.endswith("\n")


SCORES = {
    "protocol": "strict",
    "grounding": {"mIoU": 0.12345, "R@0.5": 0.5, "unshown": 1.0},
    "counts": {"grounding": {"parsed_share": 0.75, "answers": 8}},
}
COLUMNS = {"grounding": ("mIoU", "R@0.5"), "dense_captioning": ("soda_c",)}


def test_an_evaluation_fills_in_the_table_and_replaces_an_earlier_one(checkpoint, tmp_path):
    card = tmp_path / "README.md"
    before = (checkpoint / "README.md").read_text(encoding="utf-8")
    card.write_text(before, encoding="utf-8")
    for value in (0.9, 0.12345):
        fill_evaluation(card, {**SCORES, "grounding": {**SCORES["grounding"], "mIoU": value}}, COLUMNS, "corpus")
    text = card.read_text(encoding="utf-8")
    assert "| grounding | mIoU | 12.35 | 75.0% of 8 |" in text or "| grounding | mIoU | 12.34 | 75.0% of 8 |" in text
    assert "90.00" not in text and "unshown" not in text and "Not evaluated" not in text
    assert "On corpus, protocol `strict`" in text
    outside = re.compile(r"\A---\n.*?\n---\n|<!-- evaluation -->.*<!-- /evaluation -->", re.DOTALL)
    assert outside.sub("", text) == outside.sub("", before)
    head, old = (yaml.safe_load(part.split("---")[1]) for part in (text, before))
    assert {key: value for key, value in head.items() if key != "model-index"} == old
    (model,) = head["model-index"]
    assert model["name"] == "longvale-tiny"
    (result,) = model["results"]
    assert result["task"] == {"type": "video-text-to-text", "name": "grounding"}
    assert result["dataset"] == {"name": "corpus", "type": "corpus", "config": "grounding"}
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found == {"mIoU": pytest.approx(12.345, abs=0.006), "R@0.5": 50.0}
    assert result["metrics"][0]["name"] == "mIoU, protocol strict"


def test_results_on_other_data_stay_in_the_metadata(checkpoint, tmp_path):
    card = tmp_path / "README.md"
    card.write_text((checkpoint / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    for data in ("first, test split", "second, test split", "first, test split"):
        fill_evaluation(card, SCORES, COLUMNS, data)
    (model,) = yaml.safe_load(card.read_text(encoding="utf-8").split("---")[1])["model-index"]
    names = [result["dataset"]["name"] for result in model["results"]]
    assert sorted(names) == ["first, test split", "second, test split"]


def test_a_card_without_a_place_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a model card"):
        fill_evaluation(tmp_path / "README.md", SCORES, COLUMNS, "corpus")
    (tmp_path / "README.md").write_text("---\na: [1\n---\n<!-- evaluation -->\n<!-- /evaluation -->")
    with pytest.raises(ValueError, match=r"README\.md: its YAML cannot be read \("):
        fill_evaluation(tmp_path / "README.md", SCORES, COLUMNS, "corpus")
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="has no place for scores"):
        fill_evaluation(tmp_path / "README.md", SCORES, COLUMNS, "corpus")


@pytest.mark.timeout(300)
def test_evaluate_fills_in_the_card(longvale, tiny_model, tiny_corpus, checkpoint, tmp_path):
    card = tmp_path / "README.md"
    card.write_text((checkpoint / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    options = ["--data", tiny_corpus, "--output", tmp_path / "out", "--tasks", "grounding", "--limit", 1]
    result = longvale("evaluate", tiny_model, *options, "--max-new-tokens", 4, "--card", card, "-q")
    assert result.exit_code == 0, result.stderr
    assert "| grounding | mIoU |" in card.read_text(encoding="utf-8")


def test_a_dry_run_lists_what_would_go(longvale, checkpoint, tmp_path):
    scores, secret = ".eval_results/longvale.yaml", ".cache/token.yaml"
    extra = [checkpoint / name for name in ("optimizer.pt", scores, ".eval_results/notes.txt", secret, ".hidden.json")]
    for path in extra:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0")
    try:
        result = longvale("push-model", checkpoint, "user/longvale-tiny", "--dry-run")
    finally:
        for path in extra:
            path.unlink()
    assert result.exit_code == 0, result.stderr
    *files, total, last = result.stdout.splitlines()
    listed = {line.split()[-1] for line in files}
    assert {
        "README.md",
        "LICENSE.md",
        "config.json",
        "model.safetensors",
        "modeling_longvale.py",
        "tokenizer.json",
    } <= listed
    assert "optimizer.pt" not in listed and ".hidden.json" not in listed
    assert [name for name in listed if "/" in name] == [scores]
    assert total.endswith("to https://hf.co/user/longvale-tiny") and last == "nothing sent: --dry-run"


def test_links_out_of_the_folder_are_refused(checkpoint):
    link = checkpoint / "outside.py"
    link.symlink_to("/etc/hostname")
    try:
        with pytest.raises(ValueError, match=r"outside\.py: leads out of the folder"):
            plan_model(checkpoint, "user/longvale-tiny")
    finally:
        link.unlink()


def test_what_is_not_pushed(longvale, checkpoint, tiny_model, tmp_path):
    def told(*arguments):
        result = longvale("push-model", *arguments, "--dry-run")
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
        return result.stderr

    assert "repository 'a/b/c': " in told(checkpoint, "a/b/c")
    assert "no such folder" in told(tmp_path / "none", "user/name")
    assert "config.json: no such file" in told(tmp_path, "user/name")
    assert "README.md: no such file" in told(tiny_model, "user/name")


def test_the_hub_is_not_reached_offline(longvale, checkpoint):
    result = longvale("push-model", checkpoint, "user/longvale-tiny")
    assert result.exit_code == 2 and "offline mode is enabled" in result.stderr
