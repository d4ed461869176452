"""Chromium without a window, told what to do over its debugging protocol."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import websockets

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """A page of a browser that was started with these flags."""

    def __init__(self, socket):
        self.socket, self.numbers, self.problems = socket, 0, []

    async def do(self, method, **parameters):
        """The result of a method of the protocol; what goes wrong on the page meanwhile is kept."""
        self.numbers += 1
        await self.socket.send(json.dumps({"id": self.numbers, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
            entry = message["params"]["entry"] if message.get("method") == "Log.entryAdded" else {"level": "none"}
            # what a test reads back of a canvas is no fault of the page
            if message.get("method") == "Runtime.exceptionThrown" or entry["level"] in ("warning", "error") and entry["source"] != "rendering":
                self.problems.append(message["params"])
            if message.get("id") == self.numbers:
                assert "error" not in message, message
                return message["result"]

    async def run(self, code):
        """The value of an expression, awaited."""
        result = await self.do("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, code, seconds=20):
        """Waits until an expression holds."""
        for _ in range(int(seconds * 10)):
            if found := await self.run(code):
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(
            f"{code} does not hold; the page says {await self.run('document.getElementById(`status`).textContent')!r}, {self.problems}"
        )

    async def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode((await self.do("Page.captureScreenshot", format="png"))["data"]))


@contextlib.asynccontextmanager
async def opened(url, *flags, size=(1100, 980)):
    """A page at a URL."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen([CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}", "--no-first-run",
                                    "--remote-debugging-port=0", f"--window-size={size[0]},{size[1]}", *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            port_file = Path(folder, "DevToolsActivePort")
            for _ in range(300):
                if port_file.exists() and port_file.read_text().count("\n"):
                    break
                await asyncio.sleep(0.1)
            port = port_file.read_text().split("\n")[0]
            tabs = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/json").read()))
            target = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with websockets.connect(target, max_size=1 << 26, compression=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "DOM"):
                    await page.do(f"{domain}.enable")
                await page.do("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
                await page.do("Page.navigate", url=url)
                await page.until("document.readyState === 'complete' && document.getElementById('health') !== null")
                yield page
        finally:
            process.terminate()
            process.wait(20)
