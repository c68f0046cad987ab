"""`longvale doctor`: what is there, and what is missing for what."""

import importlib.metadata

import av
import pytest

from longvale.system import doctor


@pytest.fixture
def found():
    return {finding.name: finding for finding in doctor.examine()}


def test_here_all_is_well(longvale):
    result = longvale("doctor")
    assert result.exit_code == 0, result.output
    lines = {line.split()[1]: line for line in result.stdout.splitlines() if line.startswith("  ")}
    assert lines["torch"].split()[2] == importlib.metadata.version("torch")
    assert lines["decoders"].split()[0] == "ok" and "h264" in lines["decoders"]
    assert "cores" in lines["cpu"] and "MISSING" not in result.stdout


def test_packages_that_are_missing_or_old(monkeypatch, longvale):
    versions = {"trl": None, "datasets": "4.9.0", "gradio": None}
    real = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: versions[name] if name in versions else real(name))
    found = {finding.name: finding for finding in doctor.examine()}
    assert (found["trl"].value, found["trl"].state) == ("-", "missing") and "pip install 'trl>=" in found["trl"].remedy
    assert (found["datasets"].value, found["datasets"].state) == ("4.9.0", "missing")
    assert found["gradio"].state == "optional" and "longvale[app]" in found["gradio"].remedy
    result = longvale("doctor")
    assert result.exit_code == 1 and "missing: datasets, trl" in result.stdout


def test_extras_for_work_on_the_library_are_not_reported(found):
    assert "gradio" in found and "pytest" not in found and "mkdocs-material" not in found


def test_codecs_and_caches(monkeypatch, tmp_path):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"hevc", "libdav1d", "libaom-av1"})
    monkeypatch.setenv("LONGVALE_CACHE", str(tmp_path / "cache" / "longvale"))
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["decoders"].state == "optional" and "without hevc, libdav1d" in found["decoders"].remedy
    assert str(tmp_path) in found["METEOR's table"].value and not (tmp_path / "cache").exists()
