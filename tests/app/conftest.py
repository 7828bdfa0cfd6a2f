"""A headless browser for the pages, and the small pipeline of tests/small.py."""

import json
import shutil

import pytest

from tests.small import ball, pipeline  # noqa: F401  (fixtures)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium with a profile of its own; downloads go into `browser.downloads`."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options, downloads = webdriver.ChromeOptions(), tmp_path_factory.mktemp("downloads")
    options.binary_location = chromium
    quiet = ("quic", "background-networking", "component-update", "sync", "gpu")
    flags = ["headless", "no-sandbox", "no-first-run", *(f"disable-{name}" for name in quiet)]
    for flag in (*flags, f"user-data-dir={tmp_path_factory.mktemp('profile')}", "window-size=1280,1000"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.downloads = downloads
    yield browser
    browser.quit()


@pytest.fixture
def page(browser):
    """The browser, for one page; at the end, no script has failed and nothing was asked of a network."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what an earlier page left
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = [request["request"]["url"] for request in requests if request["documentURL"].startswith("file:")]
    assert asked != []  # the page itself, at least
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    browser.get("about:blank")
