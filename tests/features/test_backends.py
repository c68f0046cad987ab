"""A store read from the published archives, on disk and over HTTP, and from Parquet shards."""

import functools
import http.server
import io
import multiprocessing
import pickle
import stat
import threading
import zipfile

import numpy as np
import pytest

from longvale.features.backends import NpyArchive, parse_npy
from longvale.features.store import FOLDERS, FeatureStore

WIDTHS = {"visual": 16, "audio": 16, "speech": 24}


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def arrays(video_id, rows=40):
    rng = np.random.default_rng(list(video_id.encode()))
    return {m: rng.normal(size=(rows, width)).astype(np.float32) for m, width in WIDTHS.items()}


def write_archives(folder, video_ids, inside="{modality}_features/", rows=40):
    """As published: one archive a modality, deflated, with the number of its videos in its name."""
    for modality in WIDTHS:
        name = f"{FOLDERS[modality]}_{len(video_ids)}.zip"
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for video_id in video_ids:
                inner = inside.format(modality=modality)
                archive.writestr(f"{inner}{video_id}.npy", npy(arrays(video_id, rows)[modality]))
            archive.writestr("__MACOSX/._junk.npy", b"junk")


@pytest.mark.parametrize("inside", ["", "{modality}_features/", "a/b/"])
def test_published_archives_are_read_as_they_are(tmp_path, inside):
    write_archives(tmp_path, ["one", "two"], inside)
    store = FeatureStore(tmp_path)
    assert store.video_ids() == ["one", "two"] and store.widths() == WIDTHS
    for video_id in ("one", "two"):
        for modality, expected in arrays(video_id).items():
            np.testing.assert_array_equal(store.load(video_id)[modality], expected)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".zip"] * 3
    with pytest.raises(FileNotFoundError, match=r"visual_features_2\.zip: three\.npy: no such file"):
        store.load("three")
    assert store.load("three", missing="none") == dict.fromkeys(WIDTHS)
    with pytest.raises(ValueError, match=r"visual_features_2\.zip: .*one\.npy: features are 16 wide, expected 768"):
        store.check_widths("one", {"visual": 768})


def test_folders_and_archives_may_stand_side_by_side(tmp_path):
    write_archives(tmp_path, ["one"])
    (tmp_path / "audio_features_1.zip").unlink()
    (tmp_path / "audio_features").mkdir()
    (tmp_path / "audio_features" / "one.npy").write_bytes(npy(np.ones((2, 3))))
    assert FeatureStore(tmp_path).load("one")["audio"].shape == (2, 3)
    (tmp_path / "visual_features_9.zip").touch()
    with pytest.raises(ValueError, match=r"visual_features_1\.zip and visual_features_9\.zip; keep one"):
        FeatureStore(tmp_path)


def _load_mean(store, video_id, queue):
    queue.put(float(store.load(video_id)["visual"].mean()))


def test_archives_are_read_by_other_processes(tmp_path):
    """Pickled or forked: each process has its own place in the file."""
    write_archives(tmp_path, ["one", "two"])
    store = FeatureStore(tmp_path)
    expected = float(store.load("one")["visual"].mean())
    assert float(pickle.loads(pickle.dumps(store)).load("one")["visual"].mean()) == expected  # noqa: S301
    assert len(pickle.dumps(store)) < 10_000
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_load_mean, args=(store, "one", queue)) for _ in range(3)]
    for child in children:
        child.start()
    for _ in range(50):
        store.load("two")
    assert [queue.get(timeout=20) for _ in children] == [expected] * 3
    for child in children:
        child.join()


def test_the_fingerprint_follows_the_archive(tmp_path):
    write_archives(tmp_path, ["one", "two"])
    first = FeatureStore(tmp_path).fingerprint()
    assert FeatureStore(tmp_path).fingerprint() == first
    (tmp_path / "visual_features_2.zip").unlink()
    write_archives(tmp_path, ["one", "two"], rows=41)
    assert FeatureStore(tmp_path).fingerprint() != first


# Over HTTP


class RangeServer(http.server.SimpleHTTPRequestHandler):
    """Serves files and ranges of them, as the Hub does, and counts the bytes."""

    sent = 0

    def log_message(self, *args):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        if wanted is None or self.path.endswith("/"):
            return super().do_GET()
        with open(self.translate_path(self.path), "rb") as file:
            content = file.read()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last or len(content) - 1) + 1]
        type(self).sent += len(part)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture
def server(tmp_path):
    RangeServer.sent = 0
    handler = functools.partial(RangeServer, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_one_video_is_had_without_the_archive(tmp_path, server):
    videos = [f"video{index:03d}" for index in range(60)]
    write_archives(tmp_path, videos, rows=2000)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size > 20e6
    features = FeatureStore(server).load("video007")
    for modality, expected in arrays("video007", 2000).items():
        np.testing.assert_array_equal(features[modality], expected)
    assert 0 < RangeServer.sent < size / 4
    with pytest.raises(FileNotFoundError, match="none: no such folder of features"):
        FeatureStore(f"{server}/none")


# What is refused


def archive_of(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def special(name, mode):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/etc/one.npy", "its path is absolute"),
        ("C:/one.npy", "its path is absolute"),
        ("a\\..\\one.npy", "its path is absolute"),
        ("a/../../one.npy", "its path leaves the archive"),
        (special("one.npy", stat.S_IFLNK | 0o777), "it is a link"),
        (special("pipe", stat.S_IFIFO | 0o777), "it is a link or another special file"),
    ],
)
def test_unsafe_members_are_refused(tmp_path, member, reason):
    path = archive_of(tmp_path / "visual_features.zip", ("good.npy", npy(np.ones((1, 1)))), (member, b"/etc/passwd"))
    with pytest.raises(ValueError, match=reason) as caught:
        FeatureStore(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bombs_are_refused(tmp_path):
    archive_of(tmp_path / "visual_features.zip", ("one.npy", bytes(50 << 20)))
    with pytest.raises(ValueError, match=r"it would grow from \d+ to 52428800 bytes"):
        FeatureStore(tmp_path)
    # A member that lies about its size: what is read stays within what it says.
    path = archive_of(
        tmp_path / "visual_features.zip", ("one.npy", npy(np.random.default_rng(0).normal(size=(99, 99))))
    )
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"one\.npy"):
        FeatureStore(tmp_path).load("one")


def test_damaged_archives_are_refused(tmp_path):
    path = archive_of(tmp_path / "visual_features.zip", ("one.npy", npy(np.random.default_rng(0).normal(size=(9, 99)))))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"visual_features\.zip: not a whole zip archive"):
        FeatureStore(tmp_path)
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    with pytest.raises(ValueError, match=r"visual_features\.zip: one\.npy: damaged"):
        FeatureStore(tmp_path).load("one")
    with pytest.raises(ValueError, match=r"one\.npy: is the second array of this video"):
        NpyArchive(archive_of(tmp_path / "x.zip", ("a/one.npy", b""), ("b/one.npy", b"")))


def test_arrays_in_archives_are_never_unpickled_and_checked(tmp_path):
    class Boom:
        def __reduce__(self):
            return (tmp_path / "executed").mkdir, ()

    objects = np.empty((1, 1), object)
    objects[0, 0] = Boom()
    good = npy(np.ones((3, 4)))
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 768)})
    for content in (npy(objects), good[:-1], good + b"x", huge.getvalue(), b"", b"text", npy(np.ones((1, 1, 1)))):
        with pytest.raises(ValueError, match=r"x\.npy: (not a whole|must be floats)"):
            parse_npy(content, "x.npy")
    assert not (tmp_path / "executed").exists()
    np.testing.assert_array_equal(parse_npy(npy(np.ones((3, 4), order="F") * [1, 2, 3, 4]), "x"), [[1, 2, 3, 4]] * 3)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_any_compression_are_read_or_refused_in_one_line(tmp_path, method):
    path, array = tmp_path / "visual_features.zip", np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("one.npy", npy(array))
    np.testing.assert_array_equal(FeatureStore(tmp_path).load("one")["visual"], array)
    whole, refused = path.read_bytes(), 0
    for place in range(30, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            FeatureStore(tmp_path).load("one", missing="none")
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refused += 1
    assert refused > 50


COLUMNS = {
    "video_id": [[1], [None], [[1.0]], [b"\xff"]],
    "visual_features": [[1], ["a"], [[1.0]], [[["a"]]], [[[1.0, None]]], [[None, [1.0]]], [{"a": 1}]],
    "sha256": [["a"], [1], [None], [{"visual": 1}], [[["a"]]]],
}


@pytest.mark.parametrize(("name", "values"), [(name, v) for name, some in COLUMNS.items() for v in (None, *some)])
def test_shards_of_other_columns_are_refused_in_one_line(tmp_path, name, values):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"video_id": ["a"], "visual_features": [[[1.0, 2.0]]], "sha256": [{"visual": "0"}]}
    columns = columns | {name: values} if values is not None else {k: v for k, v in columns.items() if k != name}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        FeatureStore(tmp_path).load("a")
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
