"""The page in a browser: what is loaded, live numbers, a file and a microphone streamed to the model; what it draws is looked at as values."""

import asyncio
import wave

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("websockets", reason="the extra 'serve' is not installed")

import browser
from running_server import Running

import fastrnn as fr
from fastrnn.serving.server.access import Access
from fastrnn.serving.server.generation import Options

FRAME = 160


def louder():
    """Frames of audio in and out, the same number of samples; one that keeps a state."""
    return fr.compile(fr.RNN(FRAME, FRAME, seed=3))


def activity():
    """One number a frame, by way of a layer with a projection."""
    return fr.compile(fr.LSTM(FRAME, 8, proj_size=1, seed=3))


@pytest.fixture
def sound(tmp_path):
    """Two seconds at 16 kHz: noise, with a louder half."""
    samples = np.random.default_rng(0).standard_normal(32_000) * np.where(np.arange(32_000) > 16_000, 0.3, 0.03)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return tmp_path / "sound.wav"


needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium: apt-get install chromium")


@needs_browser
def test_the_page(sound, tmp_path):
    async def main(server):
        flags = [
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={sound}",
            "--autoplay-policy=no-user-gesture-required",
        ]
        async with browser.opened(f"http://{server.url}/", *flags) as page:
            await page.until("document.getElementById('health').textContent === 'ready'")
            assert await page.run("[...document.getElementById('model').options].map(o => o.value).join()") == "activity,louder"
            assert "x FP32 [-1,-1,160]" in await page.run("document.getElementById('facts').textContent")
            assert "LSTM" in await page.run("document.getElementById('summary').textContent")
            await file(page)
            assert await page.run("document.getElementById('listen').offsetHeight") == 0
            await page.screenshot(tmp_path / "activity.png")
            await page.run("document.getElementById('model').value = 'louder', 1")
            await page.run("document.getElementById('model').dispatchEvent(new Event('change')), 1")
            await file(page)
            assert await page.run("document.getElementById('listen').offsetHeight > 0 && document.getElementById('audio').src.startsWith('blob:')")
            await page.screenshot(tmp_path / "louder.png")
            # the microphone, which hears the file
            await page.run("document.getElementById('microphone').click(), 1")
            await page.until("document.getElementById('status').textContent.startsWith('streaming')")
            await page.until("Number(document.getElementById('n-callers').textContent) === 1")
            await page.until("document.getElementById('microphone').classList.contains('on')")
            await page.until(
                "Math.abs(Number(document.getElementById('n-frames').textContent) - 100) < 40 && Number(document.getElementById('n-p99').textContent) > 0"
            )
            await page.until("drawn('wave', 'second') > 50")
            await page.screenshot(tmp_path / "microphone.png")
            await page.run("document.getElementById('stop').click(), 1")
            await page.until("document.getElementById('status').textContent.endsWith('done')")
            frames = int((await page.run("document.getElementById('status').textContent")).split()[0])
            assert frames > 50 and not await page.run("document.getElementById('resume').disabled")
            assert (
                await page.run("drawn('wave', 'second')") > 50
                and await page.run("drawn('frames', 'first')") > 20
                and await page.run("drawn('rows', 'first')") > 20
            )
            assert page.problems == []

    async def file(page):
        """A file through the page's own control, and how many places of the drawing are the results'."""
        root = (await page.do("DOM.getDocument"))["root"]["nodeId"]
        node = (await page.do("DOM.querySelector", nodeId=root, selector="#file"))["nodeId"]
        await page.do("DOM.setFileInputFiles", nodeId=node, files=[str(sound)])
        await page.until("document.getElementById('status').textContent === '200 frames answered; done'")
        await page.until("document.getElementById('stop').disabled")
        await page.run("""globalThis.drawn = (id, name) => { const c = document.getElementById(id), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            const probe = document.createElement('i'); probe.style.color = `var(--${name})`; document.body.append(probe);
            const [r, g, b] = getComputedStyle(probe).color.match(/[0-9.]+/g).map(Number); let n = 0;
            for (let k = 0; k < d.length; k += 4) n += d[k + 3] > 200 && Math.abs(d[k] - r) + Math.abs(d[k + 1] - g) + Math.abs(d[k + 2] - b) < 12; return n; }, 1""")
        assert await page.run("drawn('wave', 'second')") > 300 and await page.run("drawn('wave', 'soft')") > 300

    with Running({"activity": activity(), "louder": louder()}, options=Options(capacity=8)) as server:
        asyncio.run(main(server))
        counted = server.models.of("activity").newest.batcher.metrics()
        assert counted["frames"] == 200 and counted["callers"] == 0


@needs_browser
def test_the_page_asks_for_a_token(tmp_path):
    (tmp_path / "tokens").write_text("0123456789abcdef\n")

    async def main(server):
        async with browser.opened(f"http://{server.url}/") as page:
            await page.until("document.getElementById('health').textContent === 'needs a token' && !document.querySelector('.token').hidden")
            await page.run(
                "document.getElementById('token').value = '0123456789abcdef', document.getElementById('token').dispatchEvent(new Event('change')), 1"
            )
            await page.until("document.getElementById('health').textContent === 'ready'")

    with Running({"activity": activity()}, access=Access(str(tmp_path / "tokens"))) as server:
        asyncio.run(main(server))


def test_the_pages_files_are_served_as_they_are():
    with Running({"activity": activity()}) as server:
        for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css"), ("/recorder.js", "text/javascript")):
            status, head, body = server.get(path)
            assert (
                status == 200
                and head["content-type"].startswith(kind)
                and b"http://" not in body
                and "default-src 'self'" in head["content-security-policy"]
            )
