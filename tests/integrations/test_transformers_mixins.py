"""The tests that transformers runs on its own models and processors, on ours: from the source distribution of the
installed version. Nothing of them is in this repository; `mixins` has what they need to know of our classes."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

#: Modules that the mixins import and the distribution lacks: without what they would test.
ABSENT = {
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}

_NO_GENERATION = "the distribution lacks GenerationTesterMixin; tests/models has tests of what it checks"
_WHAT_IS_STORED = "takes the media of one tower and returns what `longvale features` stores, see docs/use_with.md"
_PLACEHOLDER = "random ids of the mixin contain the placeholder, for which it gives no video"

#: Failures that are expected, by file: a pattern of "Class::test" -> the reason. One that passes is an error too.
EXPECTED = {
    "modeling_longvale": {
        r"\w+::test_generation_tester_mixin_inheritance": _NO_GENERATION,
        r"\w+::test_get_audio_features_(output_[012]|hidden_states|attentions)": _WHAT_IS_STORED,
        r"\w+::test_model_rope_scaling_from_config_\d_\w+": _PLACEHOLDER,
        r"RawTest::test_multimodal_outputs_are_returned": "wants the outputs of an image tower; there are only videos",
    },
    "modeling_beats": {
        r"BeatsTest::test_model_get_set_embeddings": "a spectrogram has no ids: its embedding is a convolution",
    },
    "processing_longvale": {
        r"ProcessorTest::test_flat_kwarg_applied_when_modality_dict_lacks_it": "gives images, which are not taken",
        r"ProcessorTest::test_model_input_names": "gives images, which are not taken",
        r"ProcessorTest::test_processor_from_and_save_pretrained(_as_nested_dict)?": "a saved processor names its code",
        r"ProcessorTest::test_subprocessor_defaults_3_audio": "a sound is given as chunks: one more dimension",
    },
    "feature_extraction_beats": {},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder with the tests of transformers and our testers beside those of its models."""
    pytest.importorskip("parameterized")
    folder = tmp_path_factory.mktemp("transformers")
    source = f"transformers=={version('transformers')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=transformers"]
    done = subprocess.run([*command, "--dest", folder, source], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{source} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        members = [m for m in archive.getmembers() if re.fullmatch(r"[^/]+/tests/[^/]+\.py", m.name)]
        archive.extractall(folder, members, filter="data")
    tests = next(folder.glob("*/tests"))
    for name, code in ABSENT.items():
        path = tests.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    testers = tests / "models" / "longvale"
    testers.mkdir(parents=True)
    for path in (Path(__file__).parent / "mixins").glob("*.py"):
        shutil.copy(path, testers / f"test_{path.name}")
    for package in (tests, *(path for path in tests.rglob("*") if path.is_dir())):
        (package / "__init__.py").touch()
    return tests.parent


@pytest.mark.parametrize("name", EXPECTED)
def test_the_tests_of_transformers(root, name):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfEp", "-q", "--tb=line"]
    done = subprocess.run(
        [*command, f"tests/models/longvale/test_{name}.py"],
        cwd=root,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # A test with a failed subtest is listed as passed, too.
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR|SUBFAILED)\S* \S+?::(\S+)", done.stdout, re.MULTILINE)
    assert sum(outcome == "PASSED" for outcome, _ in outcomes) > 10, done.stdout[-3000:] + done.stderr[-3000:]
    failed = {test for outcome, test in outcomes if outcome != "PASSED"}
    expected = {pattern: [t for _, t in outcomes if re.fullmatch(pattern, t)] for pattern in EXPECTED[name]}
    assert all(expected.values()), "no such test: remove it from EXPECTED"
    expected = {test for tests in expected.values() for test in tests}
    assert failed - expected == set(), done.stdout[-5000:]
    assert expected - failed == set(), "passes now: remove it from EXPECTED"
