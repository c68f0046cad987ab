"""The recipe as a user runs it, in processes of its own."""

import json
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import yaml

from longvale.checkpoints.loading import load_checkpoint
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.system.locks import hold
from longvale.training.recipes import recipes_dir

ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "HF_HUB_OFFLINE": "1",
}  # fmt: skip
#: Accumulates two small batches a step; dropout of LoRA makes the random states matter.
OPTIONS = {
    "mosaic": 64, "turns": 2, "effective_batch_size": 4, "per_device_train_batch_size": 2, "max_steps": 6,
    "logging_steps": 1, "save_steps": 2, "save_total_limit": 3, "lora_r": 4, "learning_rate": 5e-3,
    "lora_dropout": 0.1, "dataloader_num_workers": 0,
}  # fmt: skip


def command(corpus, model, output, launch=None, config="demo_boundary_perception", only=OPTIONS, **options):
    script = str(recipes_dir() / "sft.py")
    python = [sys.executable, script]
    if launch:
        file = str(recipes_dir() / "accelerate" / f"{launch}.yaml")
        python = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, script]
    options = {
        "config": recipes_dir() / "configs" / f"{config}.yaml",
        "model": model,
        "data_dir": corpus,
        "features_dir": corpus / "features",
        "output_dir": output,
        **only,
        **options,
    }
    return python + [part for name, value in options.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def run(preloaded):
    """Run the recipe in a process of its own, or in those of the launcher."""

    def call(*arguments, launch=None, **options):
        words = command(*arguments, launch=launch, **options)
        if launch:
            done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        else:
            done = preloaded.run(*words[1:], env=ENVIRONMENT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return call


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Run the recipe in this process and return what it prints: no time goes into importing."""

    def call(arguments, code=0):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", arguments[1:])
        try:
            runpy.run_path(arguments[1], run_name="__main__")
        except SystemExit as stopped:
            assert stopped.code == code
        else:
            assert code == 0
        return capsys.readouterr()

    return call


def losses(output):
    history = json.loads((output / "log_history.json").read_text())
    return {entry["step"]: float(entry["loss"]) for entry in history if "loss" in entry}


@pytest.fixture(scope="module")
def unbroken(corpus, base, run, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    return output, run(corpus, base, output)


def test_the_recipe_leaves_a_checkpoint_its_losses_and_a_card(corpus, base, unbroken):
    output, done = unbroken
    assert "4 a step (processes: 1, batch: 2, accumulated: 2)" in done.stdout
    assert sorted(losses(output)) == [1, 2, 3, 4, 5, 6]
    assert (output / "adapter" / "adapter_model.safetensors").is_file()
    load_checkpoint(output, LongVALEForConditionalGeneration, device="cpu")
    card = (output / "README.md").read_text()
    assert "# unbroken\n" in card and f"Tuned from `{base.name}` on `{corpus.name}` by the stage `" in card
    assert "Not evaluated." in card and str(base.parent) not in card and (output / "LICENSE.md").is_file()


@pytest.fixture
def kill_when(preloaded, tmp_path):
    """Start the recipe, and kill it the moment that a file or folder is there."""

    def call(path, *arguments, **options):
        with open(tmp_path / "printed", "w+b") as printed:
            process = preloaded.start(*command(*arguments, **options)[1:], env=ENVIRONMENT, stdout=printed)
            deadline = time.monotonic() + 120
            while not path.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert path.exists(), (tmp_path / "printed").read_text()

    return call


@pytest.mark.slow
def test_a_killed_run_goes_on_from_the_newest_whole_checkpoint(corpus, base, run, kill_when, unbroken, tmp_path):
    output = tmp_path / "killed"
    kill_when(output / "checkpoint-4", corpus, base, output)
    assert not (output / "config.json").exists()
    newest = output / "checkpoint-4" / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:1000])

    done = run(corpus, base, output)
    assert f"passed over a checkpoint that is not whole: {newest}: the file is damaged" in done.stderr
    assert f"starts from {output / 'checkpoint-2'}" in done.stdout
    expected = losses(unbroken[0])
    assert losses(output) == pytest.approx(expected, abs=1e-5)
    assert len(expected) == 6


@pytest.fixture
def copy(unbroken, tmp_path):
    """A copy of the output of a finished run of six steps."""
    return shutil.copytree(unbroken[0], tmp_path / "copy")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_finished_run_changes_nothing(corpus, base, run, copy, contents, here, processes):
    before = contents(copy)
    if processes == 1:
        printed = here(command(corpus, base, copy)).out
        shutil.rmtree(copy / "checkpoint-6")  # the merged checkpoint counts
        before = {name: content for name, content in before.items() if not name.startswith("checkpoint-6/")}
        here(command(corpus, base, copy, save_steps=3))
    else:
        printed = run(corpus, base, copy, launch="cpu_two_processes").stdout
    assert printed.count(f"{copy}: finished by an earlier run") == 1 and "--overwrite true" in printed
    assert contents(copy) == before


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_before_it_merged_is_merged(corpus, base, run, unbroken, copy, contents, here, processes):
    for path in copy.iterdir():
        if path.name != "settings.json" and not path.name.startswith("checkpoint-"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if processes == 1:
        printed = here(command(corpus, base, copy)).out
    else:
        printed = run(corpus, base, copy, launch="cpu_two_processes").stdout
    assert printed.count(f"merged {copy / 'checkpoint-6'}") == 1
    expected, found = contents(unbroken[0]), contents(copy)
    assert losses(copy) == losses(unbroken[0])
    assert set(found) == set(expected)
    # A trainer adds its duration to the history, its name to the adapter's tags, and that it needed no cache. The card
    # has the name of the folder.
    noted = {"log_history.json", "adapter/README.md", "config.json", "README.md"}
    assert {name for name in found if found[name] != expected[name]} <= noted
    load_checkpoint(copy, LongVALEForConditionalGeneration, device="cpu")


def test_the_result_is_pushed_on_request(corpus, base, copy, contents, here, monkeypatch):
    """A finished run pushes too. The trainer itself pushes nothing: it would need the Hub before training."""
    sent, before = [], contents(copy)
    options = {"push_to_hub": True, "hub_model_id": "me/tuned", "hub_private_repo": True, "hub_token": "secret"}
    with monkeypatch.context() as patch:
        patch.setattr("longvale.training.stages.push", lambda upload, **given: sent.append((upload, given)) or "URL")
        printed = here(command(corpus, base, copy, **options))
    assert "pushed: URL" in printed.out
    ((upload, given),) = sent
    assert upload.repo_id == "me/tuned" and given == {"private": True, "token": "secret"}
    assert {"README.md", "LICENSE.md", "config.json", "model.safetensors"} <= set(upload.files)
    assert not any("/" in name or name.endswith((".pt", ".bin")) for name in upload.files)
    refused = here(command(corpus, base, copy, **options), code=1).err.splitlines()[-1]
    assert refused.startswith("error: ") and "offline" in refused
    assert refused.endswith(f"the checkpoint is complete, send it with: longvale push-model {copy} me/tuned")
    assert contents(copy) == before


def test_more_steps_than_before_are_asked_for_by_the_checkpoints_name(corpus, base, copy, contents, here):
    before = contents(copy)
    said = here(command(corpus, base, copy, max_steps=8), code=2).err
    assert "settings.json: was made with max_steps 6, not 8; give another output_dir" in said
    assert "--overwrite true" in said and "--resume_from_checkpoint" in said and contents(copy) == before
    more = {"max_steps": 8, "resume_from_checkpoint": copy / "checkpoint-6"}
    assert f"starts from {copy / 'checkpoint-6'}" in here(command(corpus, base, copy, **more)).out
    assert sorted(losses(copy)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "finished by an earlier run" in here(command(corpus, base, copy, **more)).out


def test_a_run_that_is_overwritten_begins_again(corpus, base, copy, here):
    printed = here(command(corpus, base, copy, max_steps=2, overwrite=True, save_strategy="no", profile=True)).out
    assert f"starts from {base}" in printed
    assert sorted(losses(copy)) == [1, 2] and not list(copy.glob("checkpoint-*"))
    assert "Self CPU" in printed and (copy / "profile.json").is_file()


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_killed_while_it_writes_a_checkpoint_repeats_the_same_losses(
    corpus, base, run, kill_when, unbroken, tmp_path, step
):
    output = tmp_path / "killed"
    # The folder of a checkpoint that is being written, before it has its name.
    unfinished = output / ".unfinished" / f"checkpoint-{step}" / "optimizer.pt"
    kill_when(unfinished, corpus, base, output, save_steps=1, save_total_limit=2)
    assert not (output / f"checkpoint-{step}").exists()
    done = run(corpus, base, output, save_steps=1, save_total_limit=2)
    assert f"starts from {output / f'checkpoint-{step - 1}' if step > 1 else base}" in done.stdout
    assert losses(output) == pytest.approx(losses(unbroken[0]), abs=1e-5)
    assert not (output / ".unfinished").exists()
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-5", "checkpoint-6"]


def test_two_runs_never_train_into_one_folder(corpus, base, tmp_path, here):
    with hold(tmp_path, "out", work="the first run"):
        printed = here(command(corpus, base, tmp_path / "out"), code=2)
        assert "(the first run) has worked on it since" in printed.err and "give another output_dir" in printed.err
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(corpus, base, run, tmp_path, here):
    shared = {"lora_dropout": 0.0, "effective_batch_size": 8, "max_steps": 2, "save_strategy": "no"}
    one = here(command(corpus, base, tmp_path / "one", **shared))
    two = run(corpus, base, tmp_path / "two", launch="cpu_two_processes", **shared)
    assert "8 a step (processes: 1, batch: 2, accumulated: 4)" in one.out
    assert two.stdout.count("8 a step (processes: 2, batch: 2, accumulated: 2)") == 1
    first, second = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert second[1] == pytest.approx(first[1], abs=1e-5)
    assert second[2] == pytest.approx(first[2], abs=1e-4)  # after a step whose gradients were summed in another order


def test_stored_dialogues_and_the_second_stage(corpus, unbroken, tmp_path, here):
    options = {name: value for name, value in OPTIONS.items() if name not in ("mosaic", "turns")}
    options |= {"max_steps": 2, "max_length": 512, "gradient_checkpointing": False}
    printed = here(command(corpus, unbroken[0], tmp_path / "out", config="instruction", only=options))
    assert "instruction: 150 dialogues (instruction, stored)" in printed.out
    adapter = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(unbroken[0])


@pytest.mark.slow
def test_a_stream_goes_on_where_it_was(corpus, base, tmp_path, here, monkeypatch):
    (tmp_path / "mixture.yaml").write_text(
        (recipes_dir() / "configs" / "boundary_perception.yaml").read_text()
        + "mixture: [{dialogues: longvale-sft-bp.json, features: '.'}]\nstreaming: true\nreport_to: none\n"
    )
    options = {name: value for name, value in OPTIONS.items() if name not in ("mosaic", "turns")}
    options |= {"config": tmp_path / "mixture.yaml", "gradient_checkpointing": False}
    printed = here(command(corpus, base, tmp_path / "whole", only=options))
    assert "6 steps of dialogues (boundary_perception, streamed), 4 a step" in printed.out
    expected = losses(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-6")
    (tmp_path / "cut" / "config.json").unlink()  # a run that was killed has not merged
    printed = here(command(corpus, base, tmp_path / "cut", only=options))
    assert f"starts from {tmp_path / 'cut' / 'checkpoint-4'}" in printed.out
    assert losses(tmp_path / "cut") == pytest.approx(expected, abs=1e-5)


def test_logs_stay_on_this_machine_and_grounding_is_measured(corpus, base, tmp_path, here, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    options = {"max_steps": 2, "grounding_videos": 2, "grounding_steps": 1, "report_to": "tensorboard"}
    here(command(corpus, base, tmp_path / "out", **options, save_strategy="no"))
    history = json.loads((tmp_path / "out" / "log_history.json").read_text())
    measured = [entry for entry in history if "grounding_miou" in entry]
    assert [entry["step"] for entry in measured] == [1, 2]
    assert all(0 <= entry["grounding_miou"] <= 1 and 0 <= entry["grounding_parsed"] <= 1 for entry in measured)
    assert list((tmp_path / "board").rglob("events.out.tfevents*"))
    card = (tmp_path / "out" / "README.md").read_text()
    (result,) = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]
    assert result["dataset"]["name"] == f"{corpus.name}, first 2 videos of the test split"
    assert result["metrics"][0]["value"] == round(100 * measured[-1]["grounding_miou"], 2)


def test_trackio_is_the_default_and_needs_no_network(corpus, base, preloaded, tmp_path):
    options = {**OPTIONS, "max_steps": 1, "save_strategy": "no"}
    del options["mosaic"], options["turns"]
    environment = ENVIRONMENT | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    arguments = command(corpus, base, tmp_path / "out", config="boundary_perception", only=options)
    done = preloaded.run(*arguments[1:], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    with sqlite3.connect(tmp_path / "trackio" / "longvale.db") as database:
        logged = [json.loads(row[0]) for row in database.execute("select metrics from metrics")]
    assert any("train/loss" in metrics and "train/tokens_per_second" in metrics for metrics in logged)


def test_a_loss_that_is_no_number_ends_the_run_with_the_ids(corpus, base, tmp_path, here):
    printed = here(command(corpus, base, tmp_path / "out", learning_rate=1e30, muon_learning_rate=1e30), code=1)
    (error,) = (line for line in printed.err.splitlines() if line.startswith("error: "))
    assert error.startswith("error: step ") and "dialogues of the batch: mosaic_" in error
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--effective_batch_size=5", "error: per_device_train_batch_size (2) does not divide the 5 dialogues"),
        ("--push_to_hub=true", "error: push_to_hub needs the name of a repository; set --hub_model_id, such as"),
        ("--push_to_hub=true --hub_model_id=a/b/c", "error: hub_model_id: Repo id must be in the form"),
        ("--model=nowhere", "error: nowhere: no such model folder"),
        ("--load_in_4bit=true", "error: --load-in-4bit needs bitsandbytes"),
        ("--data_dir=nowhere", "error: nowhere/synthetic.json: no such file; compositing needs a corpus"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(corpus, base, tmp_path, here, changed, message):
    printed = here([*command(corpus, base, tmp_path / "out"), *changed.split()], code=2)
    assert printed.err.splitlines()[-1].startswith(message)
    assert not (tmp_path / "out").exists()
