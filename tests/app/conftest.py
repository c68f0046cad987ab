"""A page with a model that says what the tests want to hear: everything else about it is real."""

import re
import shutil
import time
from dataclasses import replace

import pytest

#: What the scripted model answers, by a word of the question.
ANSWERS = {
    "detail the events": "From 00 to 20, A bell is heard off screen.\n"
    "From 10 to 50, A red ring slides.\nFrom 50 to 99, A voice.",
    "describe what occurred": "A bell is heard off screen.",
    "slowly": "\n".join(f"From {n:02d} to {n + 9:02d}, part {n} of a slow answer." for n in range(0, 90, 3)),
    "nothing": "I see no such thing.",
}
SLOW_TOKEN_S = 0.05


def reply(question):
    """By a word of the question; "number N" is from N0 to N5 percent."""
    number = re.search(r"number (\d)", question)
    if number:
        return f"From {number[1]}0 to {number[1]}5."
    return next((answer for word, answer in ANSWERS.items() if word in question), "From 20 to 60.")


def script(model, processor):
    """Make a model say the scripted answers, a token at a time, to whoever listens as transformers lets them."""
    import torch

    def generate(input_ids, attention_mask, cache, max_new_tokens, do_sample, streamer, stopping_criteria):
        assert not do_sample and 0 < cache.get_seq_length() < input_ids.shape[1]  # the video's part of the prompt
        question = processor.tokenizer.decode(input_ids[0])
        streamer.put(input_ids)
        ids = processor.tokenizer(reply(question), add_special_tokens=False)["input_ids"]
        for token in ids[:max_new_tokens]:
            time.sleep(SLOW_TOKEN_S if "slowly" in question else 0)
            streamer.put(torch.tensor([token]))
            input_ids = torch.cat([input_ids, torch.tensor([[token]])], dim=1)
            if bool(stopping_criteria(input_ids, None).all()):
                break
        streamer.end()
        return input_ids

    model.generate = generate
    return model, processor


@pytest.fixture(scope="session")
def scripted_pair(tiny_model):
    from longvale.evaluation.generation.model import load_model

    return script(*load_model(tiny_model, "cpu"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Folder of a video of 32 s, the same without sound, its sound alone, and files that are no videos."""
    import av

    from longvale.demo.checkpoint import corpus_options
    from longvale.synthetic.corpus import plan_video, write_video

    folder = tmp_path_factory.mktemp("clips")
    options = replace(corpus_options(), size=96)
    write_video(plan_video("clip", 0, options), folder / "clip.mp4", options)
    with av.open(str(folder / "clip.mp4")) as source:
        for name, kind in (("silent.mp4", "video"), ("sound.m4a", "audio")):
            with av.open(str(folder / name), "w", format="mp4") as target:
                stream = target.add_stream_from_template(getattr(source.streams, kind)[0])
                source.seek(0)
                for packet in source.demux(getattr(source.streams, kind)[0]):
                    if packet.dts is not None:
                        packet.stream = stream
                        target.mux(packet)
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    (folder / "notes.txt").write_text("This is no video.\n")
    shutil.copy(folder / "clip.mp4", folder / "two names.mp4")
    with open(folder / "huge.mp4", "wb") as file:
        file.truncate(2 * 2**30)  # sparse: takes no room on the disk
    return folder


@pytest.fixture(scope="session")
def page_url(scripted_pair, tmp_path_factory):
    """Address of a served page with the scripted model; uploads up to 8 MB and 60 s."""
    from longvale.app.limits import Limits
    from longvale.app.server import serve

    with serve(scripted_pair, limits=Limits(size=8 * 2**20, length=60.0)) as url:
        yield url


@pytest.fixture(scope="session")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A headless Chromium; the test is skipped where there is none."""
    browsing = pytest.importorskip("browsing", reason="needs selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("needs chromium and chromedriver; on Debian: apt-get install chromium chromium-driver")
    driver = browsing.start(chromium, chromedriver, tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def new_tab(driver, page_url, downloads):
    """Open tabs of the page: `new_tab()`, or `new_tab(url)`; closed after the test."""
    from browsing import Tab

    first, tabs = driver.current_window_handle, []

    def open_tab(url=page_url):
        tabs.append(Tab(driver, url, downloads))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.close()
    driver.switch_to.window(first)


@pytest.fixture
def tab(new_tab):
    return new_tab()
