"""Selenium's Chrome with what reading TensorBoard takes: its pages are shadow trees and frames."""

from __future__ import annotations

import io
import os
from typing import Any, Callable, Iterable, cast

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.support.wait import WebDriverWait

ARGUMENTS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars
--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader
"""  # the last three: WebGL in software, for the Projector

# The beginning of every script: `nodes`, all elements, including those of shadow trees and frames,
# which Selenium's locators do not enter; `seen`, those of them that are laid out.
WALK = """
function all(root, out) {
  for (const node of root.querySelectorAll('*')) {
    out.push(node);
    if (node.shadowRoot) all(node.shadowRoot, out);
    if (node.tagName == 'IFRAME') {
      try { if (node.contentDocument) all(node.contentDocument, out); } catch (e) {}
    }
  }
  return out;
}
const nodes = all(document, []), seen = nodes.filter(n => n.getClientRects().length);
"""
TEXT = """
const lines = [];
for (const node of seen) {
  if (['SCRIPT', 'STYLE', 'TEMPLATE'].includes(node.tagName)) continue;
  if (node.tagName == 'INPUT' && node.value) lines.push(node.value);
  for (const child of node.childNodes) {
    if (child.nodeType == 3 && child.textContent.trim()) lines.push(child.textContent.trim());
  }
}
return lines.join('\\n');
"""
CLICK = """
const is = child => child.nodeType == 3 && child.textContent.trim() == arguments[0];
const found = seen.find(node => [...node.childNodes].some(is));
if (found) found.click();
"""


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of `ready()`.

    Raises:
      AssertionError: there is none in time; the message names `what`.
    """
    try:
        return WebDriverWait(cast(Any, None), seconds).until(lambda _: ready())
    except TimeoutException:
        raise AssertionError(f'page: expected {what} within {seconds:.0f} s. Received: none')


class Window(webdriver.Chrome):
    """A window of a headless Chromium.

    Args:
      driver: path of chromedriver; Selenium would download one if it were not given.
      binary: path of Chromium; '' if chromedriver is to find it.
      profile: an empty folder for the browser's own files.
    """

    def __init__(self, driver: str, binary: str, profile: str):
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for argument in [*ARGUMENTS.split(), f'--user-data-dir={profile}']:
            options.add_argument(argument)
        super().__init__(options, webdriver.ChromeService(driver))

    def go(self, url: str) -> None:
        self.get('about:blank')  # a change of the part after # alone would load nothing
        self.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; it may use `nodes` and `seen`."""
        return self.execute_script(WALK + script, *arguments)

    def text(self) -> str:
        """The text on the page, one line per element."""
        return self.run(TEXT)

    def click(self, text: str) -> None:
        """Clicks on the first element with that text, if there is one."""
        self.run(CLICK, text)

    def point_at(self, x: int, y: int) -> None:
        """Moves the mouse there in two moves: charts react to motion, not to position."""
        builder = ActionBuilder(self, duration=100)
        for left in (x - 8, x):
            builder.pointer_action.move_to_location(left, y)
        builder.perform()

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts that are not on the page."""
        page = self.text()
        return [text for text in texts if text not in page]

    def shows(self, *texts: str, seconds: float = 60.0) -> None:
        """Waits until all the texts are on the page.

        Raises:
          AssertionError: they are not in time; the message names those that are missing.
        """
        try:
            WebDriverWait(self, seconds).until(lambda _: not self.missing(texts))
        except TimeoutException:
            page = self.text()[:1500]
            raise AssertionError(f'page: expected {self.missing(texts)} on it. Received: {page}')

    def save(self, path: str) -> None:
        """Saves a screenshot, with 256 colours if it would otherwise exceed 180 kB."""
        picture = Image.open(io.BytesIO(self.get_screenshot_as_png())).convert('RGB')
        picture.save(path, optimize=True)
        if os.path.getsize(path) > 180000:
            # 2: fast octree, which keeps rare colours
            picture.quantize(256, method=2).save(path, optimize=True)
