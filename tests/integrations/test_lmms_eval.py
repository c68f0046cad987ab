"""The tasks for lmms-eval, in an environment of its own: it wants another PyAV. Installing it takes minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longvale.demo.checkpoint import build_checkpoint
from longvale.evaluation.generation.generate import load_questions
from longvale.evaluation.scoring.score import TABLE, score
from longvale.serving.server import serve
from longvale.synthetic.corpus import SyntheticOptions, synthesize
from longvale.tasks import TASKS, Prediction

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FOLDER = Path(__file__).parents[2] / "integrations" / "lmms_eval"
#: lmms-eval 0.7.3 imports a module that filelock 4 does not have.
REQUIREMENTS = ("lmms-eval==0.7.*", "filelock<4")
#: Can be read as an answer to each task. A comma would end the model's argument.
ANSWER = "From 10 to 60: a bell is heard off screen."


@pytest.fixture(scope="module")
def lmms_eval(tmp_path_factory):
    """Call the command of lmms-eval: `lmms_eval(arguments, **environment)`."""
    import torch

    import longvale

    folder = tmp_path_factory.mktemp("lmms_eval") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Packages of this environment, torch above all, are not installed again; what is installed there comes first.
    (site / "shared.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"lmms-eval cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
    source = str(Path(longvale.__file__).parents[1])

    def call(*arguments, **environment):
        environment = {**os.environ, "PYTHONPATH": source, "HF_HUB_OFFLINE": "1", **environment}
        command = [folder / "bin" / "lmms-eval", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return call


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    options = SyntheticOptions(size=32, fps=4, min_length_s=5, max_length_s=8)
    synthesize(folder, videos=1, test_videos=5, options=options, workers=1, progress=False)
    return folder


@pytest.fixture
def tasks(corpus, tmp_path):
    """The tasks, of the corpus."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for path in (FOLDER / "longvale").iterdir():
        if path.is_file():
            (tasks / path.name).write_bytes(path.read_bytes())
    for task in TASKS:
        lines = (f"include: longvale_{task}.yaml", f"task: own_{task}", f"dataset_kwargs: {{data_dir: {corpus}}}")
        (tasks / f"own_{task}.yaml").write_text("\n".join(lines) + "\n")
    return tasks


def test_tasks_are_listed_and_give_our_scores(lmms_eval, corpus, tasks, tmp_path):
    listed = lmms_eval("--tasks", "list", "--include_path", FOLDER)
    for name in ("longvale", *(f"longvale_{task}" for task in TASKS)):
        assert name in listed.stdout + listed.stderr

    ran = lmms_eval(
        "--model", "dummy", "--model_args", f"response={ANSWER}", "--include_path", tasks,
        "--tasks", ",".join(f"own_{task}" for task in TASKS), "--output_path", tmp_path / "results",
        LONGVALE_VIDEOS=str(corpus / "videos"), HF_HOME=str(tmp_path / "hf"),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    (path,) = (tmp_path / "results").rglob("*_results.json")
    results = json.loads(path.read_text())["results"]

    references, asked, _ = load_questions(corpus)
    answers = [Prediction(q.video_id, q.task, ANSWER, q.sentence_id) for q in asked]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(answer.to_log() + "\n" for answer in answers))
    ours = score(log, references)
    for task in TASKS:
        for name in TABLE[task]:
            assert results[f"own_{task}"][f"{name},none"] == pytest.approx(ours[task][name], abs=1e-9), (task, name)
        assert results[f"own_{task}"]["parsed,none"] == ours["counts"][task]["parsed_share"]
    assert (
        ours["dense_captioning"]["soda_c"] > 0
        and ours["grounding"]["mIoU"] > 0
        and ours["segment_captioning"]["METEOR"] > 0
    )


def test_its_client_is_answered_by_longvale_serve(lmms_eval, corpus, tasks, tmp_path):
    """It sends frames without sound, so that the answers are not those about the whole video."""
    with serve(build_checkpoint(seed=0, vocab_videos=20), name="tiny", port=0, device="cpu") as url:
        ran = lmms_eval(
            "--model", "openai", "--model_args", f"model=tiny,base_url={url},timeout=120,max_frames_num=4",
            "--include_path", tasks, "--tasks", "own_grounding", "--output_path", tmp_path / "results", "--log_samples",
            LONGVALE_VIDEOS=str(corpus / "videos"), HF_HOME=str(tmp_path / "hf"), OPENAI_API_KEY="none",
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    (path,) = (tmp_path / "results").rglob("*_samples_*.jsonl")
    answers = [json.loads(line)["filtered_resps"] for line in path.read_text().splitlines()]
    asked = [question for question in load_questions(corpus)[1] if question.task == "grounding"]
    assert len(answers) == len(asked) and all("".join(answer).strip() for answer in answers)
