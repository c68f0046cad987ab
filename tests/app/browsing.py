"""A browser as its visitor sees it: what to click, what to read, what to wait for."""

import json
import time
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By

#: The same rendering everywhere, and nothing that the browser does on its own account.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--mute-audio",
]


def start(chromium, chromedriver, profile):
    """A fresh headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.enable_bidi = True
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))


class Tab:
    """A visitor's tab that shows the page.

    Each visitor has a profile of their own, as in a private window: the six connections that a browser opens to a
    server would not do for eight of them.
    """

    def __init__(self, driver, url, downloads):
        self.driver = driver
        self.visitor = driver.browser.create_user_context()
        self.handle = driver.browsing_context.create(type="tab", user_context=self.visitor)
        self.switch()
        driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        driver.get(url)
        self.wait(lambda: self.uncovered(".lv-cards button"), "the page to be there")

    def switch(self):
        self.driver.switch_to.window(self.handle)
        return self

    def close(self):
        self.driver.browser.remove_user_context(self.visitor)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def uncovered(self, selector):
        """Whether the first such element is there and nothing covers it: a loading page is covered."""
        return self.script(
            "const e = document.querySelector(arguments[0]), r = e && e.getBoundingClientRect();"
            "return Boolean(e) && e.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2))",
            selector,
        )

    def one(self, selector):
        return self.wait(lambda: self.all(selector), selector)[0]

    def text(self, selector):
        """What a visitor reads there; empty where it is hidden."""
        return " ".join(element.text for element in self.all(selector)).strip()

    def script(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def wait(self, condition, what, seconds=40):
        """Until the condition gives something; what the page shows then is in the error."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := condition():
                    return found
            except (StaleElementReferenceException, IndexError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s for {what}; the page shows:\n{self.text('body')}")

    def upload(self, path):
        self.one("#lv-file input[type=file]").send_keys(str(path))

    def opened(self):
        """Wait for a decoded video."""
        self.wait(lambda: self.text(".lv-title") and not self.text(".lv-stage"), "the video to be decoded")
        return self

    def choose(self, task):
        labels = {label.text: label for label in self.all("#lv-task label")}
        labels[task].click()

    def ask(self, query=None, task=None):
        if task:
            self.choose(task)
        if query is not None:
            box = self.wait(lambda: [b for b in self.all("#lv-query textarea") if b.is_displayed()], "the field")[0]
            box.clear()
            box.send_keys(query)
        self.one("#lv-ask").click()

    def answered(self):
        """Wait for a complete answer: then there is something to save."""
        self.wait(lambda: self.all(".lv-save") and not self.text(".lv-stage"), "the answer")
        return self

    def bars(self, lane=None):
        return self.all(f".lv-track-{lane} .lv-bar" if lane else ".lv-bar")

    def time(self):
        return self.script("return document.querySelector('.lv video').currentTime")

    def requests(self):
        """Addresses that the browser asked for since the last call, with the page that asked."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append((message["params"]["documentURL"], message["params"]["request"]["url"]))
        return found


def download(tab, folder, link, seconds=20):
    """Click a link and give the file that comes of it."""
    before = set(Path(folder).iterdir())
    link.click()
    new = tab.wait(
        lambda: [
            p for p in set(Path(folder).iterdir()) - before if not p.name.startswith(".") and p.suffix != ".crdownload"
        ],
        "the download",
        seconds,
    )
    return new[0]
