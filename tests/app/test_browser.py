"""The page in a real browser, as visitors use it."""

import csv
import json
import os
import re
import time
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from annotated_stages import write
from browsing import download

from longvale.app import work
from longvale.app.server import serve
from longvale.demo.checkpoint import corpus_options
from longvale.events import load_annotations
from longvale.synthetic.planning import plan_video

pytestmark = pytest.mark.browser

FIRST, SECOND, THIRD = (0.0, 6.4), (3.2, 16.0), (16.0, 31.68)  # of the scripted list of events, in seconds of 32


def uploaded_files():
    return [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*.*") if path.is_file()]


def test_upload_ask_look_click_and_save(tab, clips, downloads):
    tab.requests()
    tab.upload(clips / "two names.mp4")
    tab.opened()
    assert "two names.mp4" in tab.text(".lv-title") and "0:32.0" in tab.text(".lv-title")
    assert len(tab.all(".lv-strip-seen img")) == 10  # the tiny model looks at ten frames
    outline = tab.one(".lv-strip-heard path").get_attribute("d")
    assert len({point.partition(",")[2] for point in outline.split("L")}) > 50  # a waveform, not a line

    tab.ask(task="List all events")
    tab.answered()
    assert [sentence.text.split("\n")[:3] for sentence in tab.all(".lv-sentence")] == [
        ["1", "0:00.0 – 0:06.4", "A bell is heard off screen."],
        ["2", "0:03.2 – 0:16.0", "A red ring slides."],
        ["3", "0:16.0 – 0:31.7", "A voice."],
    ]
    assert {bar.get_attribute("data-event") for bar in tab.bars()} == {"0", "1", "2"}

    # A bar lies where its event is, and takes the player there; its sentence lights up, the others do not.
    bar = tab.all(".lv-bar[data-event='2']")[0]
    track = tab.script("return arguments[0].closest('.lv-track').getBoundingClientRect()", bar)
    assert (bar.rect["x"] - track["x"]) / track["width"] == pytest.approx(THIRD[0] / 32, abs=0.01)
    assert bar.rect["width"] / track["width"] == pytest.approx((THIRD[1] - THIRD[0]) / 32, abs=0.01)
    bar.click()
    tab.wait(lambda: abs(tab.time() - THIRD[0]) < 0.2, "the player to be there")
    tab.wait(lambda: [s.get_attribute("data-event") for s in tab.all(".lv-sentence.lv-now")] == ["2"], "the light")
    tab.all(".lv-sentence")[1].click()
    tab.wait(lambda: abs(tab.time() - SECOND[0]) < 0.2, "the player to be there")
    tab.wait(
        lambda: [s.get_attribute("data-event") for s in tab.all(".lv-sentence.lv-now")] == ["0", "1"], "two lights"
    )
    tab.script("document.querySelector('.lv video').currentTime = 10")
    tab.wait(lambda: [s.get_attribute("data-event") for s in tab.all(".lv-sentence.lv-now")] == ["1"], "one light")
    tab.script("document.querySelector('.lv video').play()")
    tab.wait(lambda: tab.time() > 10.5, "the player to play")

    files = {}
    for link in tab.all(".lv-save"):
        files[link.text] = download(tab, downloads, link)
    assert {label: path.name for label, path in files.items()} == {
        "Official JSON": "two names.json",
        "WebVTT": "two names.vtt",
        "SRT": "two names.srt",
        "ActivityNet": "two names.activitynet.json",
        "CSV": "two names.csv",
    }
    annotation = load_annotations(files["Official JSON"])["two names"]
    assert [(e.start, e.end) for e in annotation.events] == [pytest.approx(span) for span in (FIRST, SECOND, THIRD)]
    assert "00:00:03.200 --> 00:00:16.000\nA red ring slides." in files["WebVTT"].read_text()
    assert "00:00:03,200 --> 00:00:16,000\nA red ring slides." in files["SRT"].read_text()
    results = json.loads(files["ActivityNet"].read_text())["results"]["two names"]
    assert [row["sentence"] for row in results] == [e.caption for e in annotation.events]
    assert len(list(csv.DictReader(files["CSV"].open()))) == 3

    # All of this came from the page's own server.
    page = tab.driver.current_url
    elsewhere = {url for asked, url in tab.requests() if asked == page and not url.startswith((page, "data:", "blob:"))}
    assert elsewhere == set()
    assert [line for line in tab.driver.get_log("browser") if line["level"] == "SEVERE"] == []


def test_an_example_and_the_other_questions(tab):
    tab.all(".lv-cards button")[1].click()
    tab.opened()
    tab.ask("a ring number 3")
    tab.answered()
    assert tab.all(".lv-sentence")[0].text.split("\n")[1:3] == ["0:09.6 – 0:11.2", "a ring number 3"]

    tab.choose("Describe a part")
    tab.wait(lambda: tab.one("#lv-from input").is_displayed(), "the fields of the part")
    tab.ask()
    tab.wait(lambda: "What happens from 0 s to 10 s?" in tab.text(".lv-answer h2"), "the part's answer")
    tab.answered()
    assert tab.all(".lv-sentence")[0].text.split("\n")[1:3] == ["0:00.0 – 0:10.0", "A bell is heard off screen."]

    tab.ask("Is there nothing?", task="Ask freely")
    tab.wait(lambda: tab.text(".lv-text") == "I see no such thing.", "an answer without events")
    assert tab.bars() == [] and tab.all(".lv-save") == []

    tab.one(".lv-title button").click()
    tab.wait(lambda: tab.all(".lv-cards button")[0].is_displayed(), "the examples again")
    tab.ask("anything")
    tab.wait(lambda: tab.text(".lv-error") == "Choose a video first: drop one, or take an example.", "a sentence")


def test_the_answer_streams_and_can_be_stopped(tab):
    tab.all(".lv-cards button")[0].click()
    tab.opened()
    tab.ask("Tell me slowly.", task="Ask freely")
    tab.wait(lambda: tab.text(".lv-stage") == "Writing the answer" and len(tab.bars()) >= 1, "the first event")
    seen = len(tab.bars())
    tab.wait(lambda: len(tab.bars()) > seen, "the next event")
    tab.one("#lv-stop").click()
    tab.wait(lambda: "Stopped." in tab.text(".lv-note") and not tab.text(".lv-stage"), "the end", 10)
    kept = len(tab.all(".lv-sentence"))
    assert 1 < kept < 30
    time.sleep(1)
    assert len(tab.all(".lv-sentence")) == kept  # nothing more comes
    tab.ask("a ring number 2")
    tab.wait(lambda: "a ring number 2" in tab.text(".lv-answer h2"), "the next answer")
    tab.answered()
    assert tab.text(".lv-sentence .lv-caption") == "From 20 to 25."  # of a free question it is the answer


def drop(tab, selector, path):
    """Drop a file on an element, as a hand does: the browser gives it to the page by a field of our own."""
    field = tab.script(
        "const field = document.createElement('input'); field.type = 'file'; field.id = 'hand';"
        "document.body.append(field); return field"
    )
    field.send_keys(str(path))
    return tab.script(
        "const data = new DataTransfer(); data.items.add(document.getElementById('hand').files[0]);"
        "const events = ['dragover', 'drop'].map((name) => new DragEvent(name, "
        "{dataTransfer: data, bubbles: true, cancelable: true}));"
        "events.forEach((event) => arguments[0].dispatchEvent(event));"
        "document.getElementById('hand').remove(); return events.map((event) => event.defaultPrevented)",
        tab.one(selector),
    )


def test_a_file_can_be_dropped_on_the_left_and_another_on_the_player(tab, clips):
    assert drop(tab, ".lv-empty h2", clips / "two names.mp4") == [True, True]
    tab.opened()
    assert "two names.mp4" in tab.text(".lv-title") and not tab.all(".lv-over")
    drop(tab, ".lv-player", clips / "silent.mp4")
    tab.wait(lambda: "silent.mp4" in tab.text(".lv-title"), "the other video")


def test_stop_is_grey_when_there_is_nothing_to_stop(tab):
    stop = tab.one("#lv-stop")
    tab.wait(lambda: not stop.is_enabled(), "Stop to be grey")
    tab.all(".lv-cards button")[0].click()
    tab.opened()
    assert not stop.is_enabled()
    tab.ask("Tell me slowly.", task="Ask freely")
    tab.wait(lambda: stop.is_enabled() and tab.bars(), "Stop to be there")
    stop.click()
    tab.wait(lambda: "Stopped." in tab.text(".lv-note") and not stop.is_enabled(), "Stop to be grey again")
    assert "events" in tab.text(".lv-label") and "unsure" not in tab.text(".lv-timeline")  # nothing was weighed


def test_a_question_that_is_offered_is_asked_with_a_click(tab, monkeypatch):
    encode = work.encode

    def encode_slowly(model, processor, media, report, stop):  # a browser gets the newest report of each 0.1 s
        def report_and_wait(*told):
            report(*told)
            time.sleep(0.3)

        return encode(model, processor, media, report_and_wait, stop)

    monkeypatch.setattr(work, "encode", encode_slowly)
    tab.all(".lv-cards button")[0].click()
    tab.opened()
    offers = {offer.text: offer for offer in tab.all(".lv-offers button")}
    assert len(offers) == 4 and "List all events" in offers
    caption = next(text for text in offers if text != "List all events")
    tab.script(
        "window.stages = []; const stage = document.querySelector('.lv-stage');"
        "new MutationObserver(() => window.stages.push(stage.innerText)).observe(stage, "
        "{subtree: true, childList: true, characterData: true})"
    )
    offers[caption].click()
    tab.wait(lambda: caption in tab.text(".lv-answer h2"), "the answer to the question that was clicked")
    tab.answered()
    assert tab.one("#lv-query textarea").get_attribute("value") == caption
    assert "none of them alone does" in tab.text(".lv-legend")
    shares = [int(found[1]) for text in tab.script("return window.stages") if (found := re.search(r" (\d+) %$", text))]
    assert shares and all(0 <= share <= 100 for share in shares)
    offers["List all events"].click()
    tab.wait(lambda: len(tab.all(".lv-sentence")) == 3, "all events")


def test_a_reload_keeps_the_upload_and_its_answer(tab, clips):
    tab.upload(clips / "two names.mp4")
    tab.opened()
    tab.ask("a ring number 2")
    tab.answered()
    tab.driver.refresh()
    tab.wait(lambda: "two names.mp4" in tab.text(".lv-title"), "the video again")
    assert "a ring number 2" in tab.text(".lv-sentences")
    time.sleep(12)  # the session of the page before is forgotten by now
    tab.wait(lambda: tab.script("return document.querySelector('.lv video').readyState") > 0, "the player")
    tab.ask("a ring number 3")
    tab.wait(lambda: "a ring number 3" in tab.text(".lv-sentences"), "another answer")


def test_the_second_visitor_sees_a_place_in_the_queue_and_may_leave_it(new_tab):
    first, second = new_tab(), new_tab()
    for visitor in (first, second):
        visitor.switch().all(".lv-cards button")[0].click()
        visitor.opened()
    first.switch().ask("Tell me slowly.", task="Ask freely")
    first.wait(lambda: first.text(".lv-stage") == "Writing the answer", "the first visitor's turn")
    second.switch().ask("a ring number 4")
    second.wait(lambda: second.text(".lv-stage") == "Waiting for your turn: place 1 of 1", "the place in the queue")
    second.one("#lv-stop").click()
    second.wait(lambda: "Stopped." in second.text(".lv-note"), "the end")
    second.ask("a ring number 5")
    first.switch().one("#lv-stop").click()
    first.wait(lambda: "Stopped." in first.text(".lv-note"), "the end")
    second.switch().answered()
    assert "a ring number 5" in second.text(".lv-sentences") and "number 4" not in second.text(".lv-answer")


def test_eight_visitors_at_once_get_their_own_answers(new_tab):
    visitors = [new_tab() for _ in range(8)]
    for number, visitor in enumerate(visitors):
        visitor.switch().all(".lv-cards button")[number % 3].click()
    for number, visitor in enumerate(visitors):
        visitor.switch().opened().ask(f"a ring number {number}")
    for number, visitor in enumerate(visitors):
        visitor.switch().answered()
        assert visitor.text(".lv-title").startswith(f"example_{number % 3 + 1}.mp4")
        (sentence,) = visitor.all(".lv-sentence")
        start, end = number * 3.2, number * 3.2 + 1.6
        assert sentence.text.split("\n")[1:3] == [f"0:{start:04.1f} – 0:{end:04.1f}", f"a ring number {number}"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("text.mp4", "text.mp4: not a media file"),
        ("huge.mp4", 'exceed the maximum allowed size of 8.0 Mb: "huge.mp4"'),
        ("notes.txt", "Invalid file type"),
    ],
)
def test_files_that_are_refused(tab, clips, name, sentence):
    before = set(uploaded_files())
    tab.upload(clips / name)
    tab.wait(lambda: sentence in tab.text("body"), sentence, 15)
    shown = tab.text("body")
    assert "Traceback" not in shown and str(clips) not in shown and "longvale-app-" not in shown
    tab.ask("anything")
    tab.wait(lambda: "Choose a video first" in tab.text(".lv-error"), "nothing to ask about")
    if name != "text.mp4":
        assert set(uploaded_files()) == before  # it never got there
    tab.upload(clips / "clip.mp4")
    tab.opened()


def test_videos_without_sound_and_sound_without_video(tab, clips):
    tab.upload(clips / "silent.mp4")
    tab.opened()
    assert tab.text(".lv-note").startswith("This video has no sound.") and not tab.all(".lv-strip-heard path")
    tab.ask("a ring number 1")
    tab.answered()
    assert not tab.bars("heard") and not tab.bars("said")
    tab.one(".lv-title button").click()
    tab.wait(lambda: tab.all(".lv-cards button")[0].is_displayed(), "the empty page")
    tab.upload(clips / "sound.m4a")
    tab.opened()
    assert tab.text(".lv-note").startswith("This file has no picture.") and not tab.all(".lv-strip-seen img")
    tab.ask("a ring number 1")
    tab.answered()
    assert not tab.bars("seen")


def test_an_upload_is_gone_when_its_visitor_is(new_tab, clips):
    visitor = new_tab()
    visitor.upload(clips / "clip.mp4")
    visitor.opened()
    (path,) = [path for path in uploaded_files() if path.name == "clip.mp4"]
    address = visitor.script("return document.querySelector('.lv video').src")
    assert str(path) in address
    visitor.driver.get("about:blank")
    visitor.wait(lambda: not path.exists(), "the upload to be deleted", 30)


def test_annotations_are_shown_beside_their_video(new_tab, scripted_pair, clips, tmp_path):
    stages = write(tmp_path / "out.stages")
    with serve(scripted_pair, examples=clips, annotations=stages) as url:
        visitor = new_tab(url)
        assert [card.text.split("\n")[0] for card in visitor.all(".lv-cards button")] == ["clip.mp4"]
        visitor.all(".lv-cards button")[0].click()
        visitor.opened().answered()
        assert [len(visitor.all(f".lv-track-{lane} .lv-edges i")) for lane in ("seen", "heard", "said")] == [2, 1, 0]
        assert [len(visitor.bars(lane)) for lane in ("seen", "heard", "said", "unsure")] == [1, 1, 0, 1]
        first = visitor.all(".lv-sentences li")[0]
        assert first.text.split("\n")[2] == "A <b>."  # a text, whatever it looks like
        visitor.script("arguments[0].querySelector('summary').click()", first)
        assert "A bell." in first.text and "motion 3.2" in first.text
        visitor.ask("a ring number 2")
        visitor.wait(lambda: "a ring number 2" in visitor.text(".lv-sentences"), "an answer in its place")


def test_the_trained_model_of_the_demo_finds_what_is_seen(new_tab):
    model = Path(__file__).resolve().parents[2] / "demo" / "model"
    if not model.is_dir():
        pytest.skip("needs demo/model: make demo")
    events = plan_video("example_1", "examples", corpus_options()).annotation.events
    event = next(event for event in events if event.modalities == ("visual",))
    with serve(model) as url:
        visitor = new_tab(url)
        visitor.all(".lv-cards button")[0].click()
        visitor.opened().ask(event.caption)
        visitor.answered()
        start, end = (float(time.split(":")[1]) for time in visitor.text(".lv-sentence time").split(" – "))
        overlap = max(0, min(end, event.end) - max(start, event.start))
        assert overlap / (max(end, event.end) - min(start, event.start)) > 0.5
        assert [len(visitor.bars(lane)) for lane in ("seen", "heard", "said")] == [1, 0, 0]


def test_with_the_keyboard_alone(tab):
    tab.script("document.querySelector('.lv-cards button').focus()")
    tab.driver.switch_to.active_element.send_keys("\ue007")
    tab.opened()
    tab.ask(task="List all events")
    tab.answered()
    bars = {bar.get_attribute("data-event"): bar for bar in tab.bars() if bar.get_attribute("tabindex") != "-1"}
    assert sorted(bars) == ["0", "1", "2"]  # each event is one stop, however many lanes it lies in
    assert bars["1"].get_attribute("aria-label").endswith(": A red ring slides.")
    assert bars["1"].get_attribute("aria-label").startswith("Event 2, 0:03.2 to 0:16.0")
    tab.script("arguments[0].focus()", bars["0"])
    tab.driver.switch_to.active_element.send_keys("\ue014")
    assert tab.driver.switch_to.active_element.get_attribute("data-event") == "1"
    tab.wait(lambda: abs(tab.time() - SECOND[0]) < 0.2, "the player to follow")
    names = tab.script(
        "return [...document.querySelectorAll('.lv button, .lv a, #lv-side button, #lv-side input:not([type=file]), "
        "#lv-side textarea')].filter(e => e.offsetParent).filter(e => !(e.getAttribute('aria-label') || e.innerText || "
        "e.labels?.length || e.closest('label')?.innerText)).map(e => e.outerHTML)"
    )
    assert names == []  # whatever can be used says what it is


def test_it_fits_a_narrow_screen(tab):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    tab.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        tab.all(".lv-cards button")[0].click()
        tab.opened()
        tab.ask(task="List all events")
        tab.answered()
        wide = "return [...document.querySelectorAll('.lv *, #lv-side *')].filter(e => e.offsetParent && "
        wide += "e.getBoundingClientRect().right > 361 && !e.closest('.lv-strip')).map(e => e.outerHTML.slice(0, 120))"
        assert tab.script(wide) == []
        assert tab.script("return document.documentElement.scrollWidth") <= 360
    finally:
        tab.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_texts_stand_out_from_what_is_behind_them(tab):
    """The contrast of WCAG AA, 4.5 to 1, for the page's own texts in the light and the dark theme."""
    tab.all(".lv-cards button")[0].click()
    tab.opened()
    tab.ask(task="List all events")
    tab.answered()
    for dark in (False, True):
        tab.script("document.body.classList.toggle('dark', arguments[0])", dark)
        time.sleep(0.4)  # colours change slowly
        assert tab.script(CONTRAST) == []


#: Selectors of texts whose colour is too near to the one behind them; hatched and pictured backgrounds are left out.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgb(colour) {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
}
function behind(node) {
  let layers = [];
  for (let at = node; at; at = at.parentElement) {
    const colour = rgb(getComputedStyle(at).backgroundColor);
    if (colour[3]) layers.push(colour);
    if (colour[3] === 255) break;
  }
  return layers.reverse().reduce((below, [r, g, b, a]) =>
    [r, g, b].map((value, i) => value * a / 255 + below[i] * (1 - a / 255)), [255, 255, 255]);
}
const light = (colour) => {
  const [r, g, b] = [...colour].map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const texts = [...document.querySelectorAll(".lv-head *, .lv *, .lv-hint, #lv-side button, #lv-side label span")];
const written = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
return texts.filter((e) => e.offsetParent && !e.closest(".lv-bar") && written(e))
  .map((e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return [e.className || e.tagName, e.textContent.slice(0, 30), Math.round((a + 0.05) / (b + 0.05) * 10) / 10];
  }).filter(([, , ratio]) => ratio < 4.5);
"""
