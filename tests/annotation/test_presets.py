"""Preset files: those of the package, what is refused, what options and outputs make of them."""

import base64
import io
import json
import re
import wave

import pytest
from chat_server import GOOD as GOOD_ANSWER
from chat_server import Server
from needs import needs_annotation

from longvale.annotation.presets.download import plan_downloads
from longvale.annotation.presets.preset import PresetError, load_preset, preset_names
from longvale.annotation.presets.provenance import describe_model
from longvale.registry import captioners

GOOD = """\
summary: Models for a test.
hardware: CPU
roles:
  tagger:
    model: some/tagger
    revision: 0123456789012345678901234567890123456789
    about: Names sounds.
"""


def faults_of(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PresetError) as caught:
        load_preset(path)
    assert all(fault.startswith(f"{path}: ") and "\n" not in fault for fault in caught.value.faults)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


def test_those_of_the_package():
    assert preset_names() == ("small", "large", "omni", "server")
    for name in preset_names():
        preset = load_preset(name)
        for model in preset.roles.values():
            assert model.license and model.about
            if model.downloads:
                assert re.fullmatch("[0-9a-f]{40}", model.revision) and model.size_mb and model.model_type
    sizes = [load_preset(name).size_mb for name in ("small", "large", "omni", "server")]
    assert sizes == [7031, 19_925, 33_415, 0]  # a model of several roles counts once
    assert not load_preset("server").options()["language_model"].startswith("server")


def test_faults_are_named_a_line_each(tmp_path):
    text = GOOD.replace("hardware: CPU", "hardware: 3\nserver: https://example.org/v1\nnose: 1")
    text = text.replace("some/tagger", "[a, b]").replace("about: Names sounds.", "size_mb: -1")
    text += "  reader: {}\n  video_captioner: pictures\n"
    faults = faults_of(text, tmp_path)
    expected = [
        "field 'nose' is not known; one of summary, hardware",
        "field 'hardware' must be a line of text of at most 300 characters, not 3",
        "field 'server' must be the URL of a server on this machine, such as http://127.0.0.1:8000/v1, not 'https://ex",
        "field 'roles.tagger.about' is missing",
        "field 'roles.tagger.model' must be a Hub id, such as openai/whisper-base, not ['a', 'b']",
        "field 'roles.tagger.size_mb' must be a number of megabytes, not -1",
        "field 'roles.reader' is not a role; one of video_captioner, keyframe_captioner",
        "field 'roles.video_captioner' must be a mapping with model, revision, license ..., not 'pictures'",
    ]
    assert len(faults) == len(expected)
    for fault, begin in zip(faults, expected, strict=True):
        assert fault.startswith(begin), fault


@pytest.mark.parametrize(("change", "fault"), [
    (("0123456789012345678901234567890123456789", "main"), "field 'roles.tagger.revision' must be a commit of 40"),
    (("    revision: 0123456789012345678901234567890123456789\n", ""), "field 'roles.tagger.revision' is missing"),
    (("some/tagger", "../../folder"), "field 'roles.tagger.model' must be a Hub id"),
    (("Names sounds.", "&a [*a]"), "line 7: uses an alias; write the value out"),
    (("Names sounds.", "!!python/object/apply:os.system [ls]"), "is not YAML: could not determine a constructor"),
    (("about: Names", "model: other/one\n    about: Names"), "line 5: field 'model' is there twice; keep one"),
    (("Names sounds.", "[" * 60_000), "line 7: has more than 8 nested levels; remove some"),
    (("Names sounds.", "{a: " * 9), "line 7: has more than 8 nested levels; remove some"),
    (("Names sounds.", "x" * 70_000), "has more than 65536 bytes"),
    (("about: Names sounds.", f"about: a\n    size_mb: 0x{'f' * 20_000}"), "field 'roles.tagger.size_mb' must be a"),
    (("about: Names", "name: nothing\n    about: Names"), "field 'roles.tagger.name': 'nothing' is not a registered"),
    ((GOOD, "- a\n"), "must be a mapping with summary, hardware and roles, not ['a']"),
    ((GOOD, "\x00"), "is not YAML"),
])  # fmt: skip
def test_what_is_refused(tmp_path, change, fault):
    assert change[0] in GOOD
    (found,) = faults_of(GOOD.replace(*change), tmp_path)
    assert found.startswith(fault), found


def test_a_module_that_a_file_names_is_not_imported(tmp_path, monkeypatch, longvale):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.py").write_text("open('imported', 'w')\nclass Tagger: pass\n")
    (tmp_path / "mine.yaml").write_text(GOOD.replace("about:", "name: strange:Tagger\n    about:"))
    done = longvale("annotate", "presets", "mine.yaml")
    assert done.exit_code == 2 and not (tmp_path / "imported").exists()
    assert "'strange:Tagger' is not a registered name; " in done.stderr
    assert "package.module:Name on the command line: --tagger" in done.stderr


def test_they_are_listed(longvale, tmp_path):
    done = longvale("annotate", "presets")
    assert done.exit_code == 0, done.stderr
    for text in ("small: ", "7.0 GB to download", "Qwen/Qwen2.5-1.5B-Instruct", "bsd-3-clause", "mit (unverified)"):
        assert text in done.stdout
    assert longvale("annotate", "presets", "--download").stderr.startswith("longvale: error: --download needs the pre")
    assert "presets are small, large, omni, server" in longvale("annotate", "presets", "tiny").stderr


@needs_annotation
def test_without_a_connection_and_without_models_the_remedy_is_named(longvale, film, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    done = longvale("annotate", "presets", "small", "--download")
    assert done.exit_code == 2 and "HF_HUB_OFFLINE is set; unset it to download" in done.stderr
    done = longvale("annotate", film("a.mp4", 4.0), "--output", tmp_path / "out.json", "--preset", "small")
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert "to fetch it: hf download " in done.stderr
    assert done.stderr.endswith("all models of the preset: longvale annotate presets small --download\n")
    assert not (tmp_path / "out.stages").exists()


class Stub:
    """A captioner that knows which model it was asked to be."""

    size = 32

    def __init__(self, role, options):
        self.name = f"{options.need_model()} ({role})"

    def __call__(self, clip):
        return f"As {self.name}."


@pytest.fixture
def stub(monkeypatch):
    captioners.names()  # the built-in ones first
    monkeypatch.setitem(captioners._objects, "stub", Stub)


def preset_of(model, path):
    role = f"{{name: stub, model: {model}, revision: {'a' * 40}, license: mit, about: A stub.}}"
    path.write_text(f"summary: A.\nhardware: CPU\nroles:\n  video_captioner: {role}\n  keyframe_captioner: {role}\n")
    return path


@needs_annotation
def test_presets_do_not_mix_and_options_override_them(stub, longvale, film, tmp_path):
    video, output = film("a.mp4", 4.0), tmp_path / "out.json"
    first, second = (preset_of(f"some/{name}", tmp_path / f"{name}.yaml") for name in ("first", "second"))
    command = ("annotate", video, "--output", output)
    assert longvale(*command, "--preset", first).exit_code == 0
    before = output.read_bytes()
    assert "As some/first@" in before.decode()
    done = longvale(*command, "--preset", second)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert "was made with captioners.video 'some/first@aaa" in done.stderr and "--overwrite" in done.stderr
    assert longvale(*command).exit_code == 2 and output.read_bytes() == before
    done = longvale(*command, "--preset", first, "--keyframe-captioner", "stub:other/model", "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert "As some/first@" in output.read_text() and "As other/model (keyframe)." in output.read_text()
    found = json.loads(output.with_suffix(".provenance.json").read_text())
    assert found["preset"] == str(first) and found["models"] == {
        "video_captioner": {"model": "some/first", "revision": "a" * 40, "license": "mit"},
        "keyframe_captioner": {"model": "other/model", "revision": None, "license": None},
    }


def test_a_server_of_the_command_line_is_not_asked_for_a_model_that_is_loaded_here(longvale, film, tmp_path):
    command = ("annotate", film("a.mp4", 4.0), "--output", tmp_path / "out.json", "--preset", "small")
    done = longvale(*command, "--server", "http://127.0.0.1:1/v1")
    assert done.exit_code == 2 and "name the server's with --language-model" in done.stderr


@needs_annotation
def test_all_that_is_behind_a_server_is_asked_of_it(longvale, film, tmp_path, online):
    server = Server(GOOD_ANSWER)
    output = tmp_path / "out.json"
    done = longvale("annotate", film("a.mp4", 4.0), "--output", output, "--preset", "server", "--server", server.url)
    server.stop()
    assert done.exit_code == 0, done.stderr
    assert {question["model"] for question in server.asked} == {"Qwen/Qwen3-Omni-30B-A3B-Instruct"}
    contents = [question["messages"][0]["content"] for question in server.asked]
    kinds = {tuple(part["type"] for part in content) for content in contents if isinstance(content, list)}
    assert kinds == {("image_url",) * 8 + ("text",), ("image_url", "text"), ("input_audio", "text")}
    (sound, *_) = (part["input_audio"] for content in contents for part in content if "input_audio" in part)
    with wave.open(io.BytesIO(base64.b64decode(sound["data"]))) as file:
        assert sound["format"] == "wav" and file.getframerate() == 16_000 and file.getnframes() > 16_000
    assert any(isinstance(content, str) for content in contents)  # the language model is asked without media
    assert "Something is seen and heard." in output.read_text()


def test_the_license_is_that_of_the_card(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A model\n")
    assert describe_model(str(tmp_path)) == {"model": str(tmp_path), "revision": None, "license": "cc-by-4.0"}
    (tmp_path / "README.md").write_text("---\ntags: [a]\nlicense: 'mit'  # as of 2024\n---\nlicense: other\n")
    assert describe_model(str(tmp_path))["license"] == "mit"
    for metadata in ("license: [1", "base:\n  license: mit", f"a: {'[' * 60_000}", "a: b\n---\nlicense: mit"):
        (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n")
        assert describe_model(str(tmp_path))["license"] is None
    (tmp_path / "README.md").write_text("---\nlicense: [1\n---\n")
    assert describe_model(str(tmp_path), "mit")["license"] == "mit" and describe_model(str(tmp_path))["license"] is None


# --- downloads -------------------------------------------------------------------------------------------------------


class Info:
    def __init__(self, filename, file_size, will_download):
        self.filename, self.file_size, self.will_download = filename, file_size, will_download


def test_downloads_are_planned_by_what_the_hub_has(tmp_path, monkeypatch, capsys):
    """Safetensors if there are any, else the other weights; sizes are printed; what is there is not fetched."""
    from fnmatch import fnmatch

    from longvale.annotation.presets.download import download

    there = {"config.json": 1000, "pytorch_model.bin": 5_000_000, "tf_model.h5": 10**9, "README.md": 10}
    both = {**there, "model.safetensors": 4_000_000}
    asked = []

    def snapshot(model, *, revision, allow_patterns, dry_run, max_workers):
        asked.append((model, revision, dry_run))
        files = both if model == "some/both" else there
        names = [name for name in files if any(fnmatch(name, pattern) for pattern in allow_patterns)]
        return [Info(name, files[name], model != "some/cached") for name in names]

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    roles = {"visual_model": "some/both", "audio_model": "some/old", "language_model": "some/cached"}
    path = tmp_path / "mine.yaml"
    path.write_text("summary: A.\nhardware: CPU\nroles:\n" + "".join(
        f"  {role}: {{model: {model}, revision: {'a' * 40}, about: A.}}\n" for role, model in roles.items()
    ))  # fmt: skip
    plans = plan_downloads(load_preset(path))
    lines = []
    download(plans, lines.append)
    at = "@" + "a" * 40
    assert lines == [
        f"some/both{at}: 4.0 MB, 4.0 MB to download",
        f"some/old{at}: 5.0 MB, 5.0 MB to download",
        f"some/cached{at}: 5.0 MB, all of it in the cache",
    ]
    assert [model for model, _, dry in asked if not dry] == ["some/both", "some/old"]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: [Info("config.json", 1, True)])
    with pytest.raises(ValueError, match="has no weights that are read here"):
        plan_downloads(load_preset(path))
