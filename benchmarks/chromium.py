"""A headless Chromium that reads what a page shows, driven over the WebDriver protocol: no packages
needed but Pillow for screenshots.
"""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

_FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    '--hide-scrollbars',
    '--use-gl=angle',
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
)  # the last three: WebGL, in software
_DIRECT = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # loopback only, whatever the environment says of proxies

# Beginnings of scripts: `nodes`, all elements of the page through its shadow trees and frames;
# `seen`, those that are laid out.
_WALK = """
function all(root, out) {
  for (const node of root.querySelectorAll('*')) {
    out.push(node);
    if (node.shadowRoot) all(node.shadowRoot, out);
    if (node.tagName == 'IFRAME') { try { if (node.contentDocument) all(node.contentDocument, out); } catch (e) {} }
  }
  return out;
}
const nodes = all(document, []), seen = nodes.filter(n => n.getClientRects().length);
"""
_TEXT = """
const lines = [];
for (const node of seen) {
  if (['SCRIPT', 'STYLE', 'TEMPLATE'].includes(node.tagName)) continue;
  if (node.tagName == 'INPUT' && node.value) lines.push(node.value);
  for (const child of node.childNodes) if (child.nodeType == 3 && child.textContent.trim()) lines.push(child.textContent.trim());
}
return lines.join('\\n');
"""
_CLICK = """
const found = seen.find(n => [...n.childNodes].some(c => c.nodeType == 3 && c.textContent.trim() == arguments[0]));
if (found) found.click();
return Boolean(found);
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def read(url):
    """The bytes at a loopback address."""
    return _DIRECT.open(url, timeout=60).read()


def fetch(url, data=None, method=None, timeout=60):
    """The JSON at a loopback address."""
    request = urllib.request.Request(url, data, {'Content-Type': 'application/json'}, method=method)
    return json.loads(_DIRECT.open(request, timeout=timeout).read().decode())


def wait_for(what, ready, seconds=60.0):
    """The first true value of `ready()`; an AssertionError that names `what` if there is none in
    time.
    """
    until = time.monotonic() + seconds
    while True:
        value = ready()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(
                f'expected {what} within {seconds:.0f} s. Received: nothing of the kind'
            )
        time.sleep(0.5)


@contextlib.contextmanager
def server(command, url):
    """Runs a server until the end of the block; it and its children are ended by their process
    group.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )

    def answers():
        if process.poll() is not None:
            raise AssertionError(
                f'expected {command[0]} to run. Received: exit status {process.returncode}'
            )
        try:
            return _DIRECT.open(url, timeout=5).status == 200
        except OSError:
            return False

    try:
        wait_for('an answer of ' + url, answers)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Browser:
    """A window of Chromium.

    Args:
      driver: address of a running chromedriver.
      profile: an empty folder for the browser's own files.
      binary: path of Chromium, or None.
    """

    def __init__(self, driver, profile, binary=None):
        options = {'args': list(_FLAGS) + ['--user-data-dir=' + profile]}
        if binary:
            options['binary'] = binary
        self._base = driver
        self._base += (
            '/session/'
            + self._ask(
                'POST',
                '/session',
                {
                    'capabilities': {
                        'alwaysMatch': {'browserName': 'chrome', 'goog:chromeOptions': options}
                    }
                },
            )['sessionId']
        )

    def _ask(self, method, path, body=None):
        try:
            return fetch(
                self._base + path, None if body is None else json.dumps(body).encode(), method, 120
            )['value']
        except urllib.error.HTTPError as error:
            raise AssertionError(f'the browser refused {path}: {error.read().decode()[:300]}')

    def resize(self, width, height):
        self._ask('POST', '/window/rect', {'width': width, 'height': height})

    def go(self, url):
        self._ask(
            'POST', '/url', {'url': 'about:blank'}
        )  # a change behind the # alone would load nothing
        self._ask('POST', '/url', {'url': url})

    def run(self, script, *arguments):
        """What a script returns that may use `nodes`, all elements of the page, and `seen`, those
        that are shown.
        """
        return self._ask(
            'POST', '/execute/sync', {'script': _WALK + script, 'args': list(arguments)}
        )

    def text(self):
        return self.run(_TEXT)

    def click(self, text):
        return self.run(_CLICK, text)

    def point_at(self, x, y):
        """Moves the mouse there in two steps, as a hand does."""
        moves = [
            {'type': 'pointerMove', 'duration': 100, 'x': x + dx, 'y': y, 'origin': 'viewport'}
            for dx in (-8, 0)
        ]
        self._ask(
            'POST',
            '/actions',
            {
                'actions': [
                    {
                        'type': 'pointer',
                        'id': 'mouse',
                        'parameters': {'pointerType': 'mouse'},
                        'actions': moves,
                    }
                ]
            },
        )

    def shows(self, *texts, **limits):
        """Waits until all the texts are on the page; an AssertionError says which are not."""
        found = ['']

        def there():
            found[0] = self.text()
            return all(text in found[0] for text in texts)

        try:
            wait_for('', there, **limits)
        except AssertionError:
            missing = [text for text in texts if text not in found[0]]
            raise AssertionError(f'expected {missing!r} on the page. Received: {found[0][:1500]}')

    def save(self, path):
        """A screenshot, in 256 colours where all of them would take more than 180 kB."""
        from PIL import Image

        picture = Image.open(io.BytesIO(base64.b64decode(self._ask('GET', '/screenshot')))).convert(
            'RGB'
        )
        picture.save(path, optimize=True)
        if os.path.getsize(path) > 180000:
            picture.quantize(256, method=2).save(
                path, optimize=True
            )  # 2: fast octree, keeps rare colours

    def quit(self):
        self._ask('DELETE', '')
