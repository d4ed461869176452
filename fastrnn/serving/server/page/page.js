// The page: what is loaded and how it is doing, asked once a second; and a try-out over the WebSocket.

const $ = id => document.getElementById(id);
const probes = {}, color = name => getComputedStyle(probes[name]).color;
for (const name of ["first", "second", "soft"]) {  // light-dark() is resolved on elements alone
  probes[name] = document.body.appendChild(document.createElement("i"));
  probes[name].style.color = `var(--${name})`;
}

// Charts.

function surface(canvas) {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== width * scale || canvas.height !== height * scale) { canvas.width = width * scale; canvas.height = height * scale; }
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  return [c, width, height];
}

const SECONDS = 120, history = {};

function lines(canvas, series, low = 0) {
  const [c, width, height] = surface(canvas), top = Math.max(1e-9, low, ...series.flatMap(s => s.values.filter(Number.isFinite)));
  for (const { values, name } of series) {
    c.beginPath();
    values.forEach((v, k) => {
      const x = width * (k + SECONDS - values.length) / (SECONDS - 1), y = height - 4 - (height - 12) * (v / top);
      if (Number.isFinite(v)) (k && Number.isFinite(values[k - 1]) ? c.lineTo(x, y) : c.moveTo(x, y));
    });
    c.strokeStyle = color(name); c.lineWidth = 1.5; c.stroke();
  }
}

function bars(canvas, bounds, counts) {
  const [c, width, height] = surface(canvas), last = counts.findLastIndex(n => n > 0) + 1, top = Math.max(...counts, 1);
  c.fillStyle = color("first"); c.font = "10px system-ui"; c.textAlign = "center";
  for (let k = 0; k < last; k++) {
    const w = width / Math.max(last, 6), h = (height - 26) * counts[k] / top;
    c.fillStyle = color("first"); c.fillRect(k * w + 3, height - 16 - h, w - 6, h);
    c.fillStyle = color("soft"); c.fillText(bounds[k] ?? "more", k * w + w / 2, height - 4);
  }
}

function quantile(histogram, q) {  // by the bound that it lies below
  const total = histogram.counts.reduce((a, b) => a + b, 0);
  let seen = 0;
  if (!total) return NaN;
  for (let k = 0; k < histogram.counts.length; k++) if ((seen += histogram.counts[k]) >= q * total) return 1e3 * (histogram.bounds[k] ?? histogram.bounds.at(-1));
}

const difference = (now, before) => now.map((n, k) => n - (before?.[k] ?? 0));
const short = x => !Number.isFinite(x) ? "" : x >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(2).replace(/\.0$/, "");

// What is there, once a second.

let before = null, asked = 0;

async function look() {
  const headers = $("token").value ? { authorization: `Bearer ${$("token").value}` } : {};
  try {
    const answer = await fetch("live", { headers });
    document.querySelector(".token").hidden = answer.status !== 401 && !$("token").value;
    if (!answer.ok) throw new Error(answer.status === 401 ? "needs a token" : `status ${answer.status}`);
    show(await answer.json(), performance.now());
  } catch (error) {
    $("health").textContent = error.message; $("health").className = "badge gone";
  }
}

function show(live, now) {
  $("version").textContent = live.version;
  $("health").textContent = live.draining ? "draining" : "ready"; $("health").className = live.draining ? "badge gone" : "badge ready";
  const names = Object.keys(live.models);
  if ([...$("model").options].map(o => o.value).join() !== names.join()) $("model").replaceChildren(...names.map(n => new Option(n)));
  const name = $("model").value, model = live.models[name], old = before?.models[name];
  const shapes = tensors => tensors.map(t => `${t.name} ${t.datatype} [${t.shape}]`).join(", ");
  $("facts").textContent = `version ${model.version}, ${shapes(model.inputs)} → ${shapes(model.outputs)}, room for ${model.capacity}`;
  $("summary").textContent = model.summary;
  const protocols = Object.values(model.latency), zero = protocols[0]?.counts.map(() => 0) ?? [];
  const sum = list => list.reduce((all, h) => all.map((n, k) => n + h.counts[k]), zero);
  const latency = { bounds: protocols[0]?.bounds ?? [], counts: difference(sum(protocols), old && sum(Object.values(old.latency))) };
  const values = { callers: model.callers, frames: old ? 1e3 * (model.frames - old.frames) / (now - asked) : NaN, p50: quantile(latency, .5), p99: quantile(latency, .99) };
  const kept = history[name] ??= { callers: [], frames: [], p50: [], p99: [] };
  for (const [key, value] of Object.entries(values)) { kept[key].push(value); kept[key].splice(0, kept[key].length - SECONDS); $("n-" + key).textContent = short(value); }
  lines($("callers"), [{ name: "first", values: kept.callers }], 4);
  lines($("frames"), [{ name: "first", values: kept.frames }], 10);
  lines($("latency"), [{ name: "first", values: kept.p50 }, { name: "second", values: kept.p99 }], 1);
  if (model.batch_rows) {
    const counts = difference(model.batch_rows.counts, old?.batch_rows?.counts), used = counts.some(n => n) ? counts : model.batch_rows.counts;
    bars($("rows"), model.batch_rows.bounds, used);
    $("n-rows").textContent = counts.some(n => n) ? "last second" : "so far";
  }
  before = live; asked = now;
}

look();
setInterval(look, 1000);
$("token").addEventListener("change", look);
$("model").addEventListener("change", () => { before = null; look(); });

// The try-out.

const SHOWN_S = 12;
let run = null, lastToken = null;

class Run {
  constructor(rate) {
    this.rate = rate; this.samples = []; this.n = 0; this.results = []; this.frame = 0; this.sent = 0; this.waiting = [];
    const protocols = $("token").value ? ["fastrnn", `bearer.${$("token").value}`] : ["fastrnn"];
    const model = encodeURIComponent($("model").value);
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v2/models/${model}/stream`, protocols);
    this.socket.binaryType = "arraybuffer";
    this.ended = new Promise(resolve => { this.socket.onclose = event => resolve(event); });
    this.socket.onopen = () => this.start();
    this.socket.onmessage = ({ data }) => typeof data === "string" ? this.told(JSON.parse(data)) : this.answered(new Float32Array(data));
  }
  start() {
    const start = { type: "start" };
    try {
      if ($("inputs").value.trim()) start.inputs = JSON.parse($("inputs").value);
    } catch { return this.fail("other inputs must be JSON, such as {\"sr\": 16000}"); }
    if ($("frame").value) start.frame = Number($("frame").value);
    if ($("resume").checked && lastToken) start.state_token = lastToken;
    this.socket.send(JSON.stringify(start));
  }
  told(message) {
    if (message.type === "ready") {
      if (message.frame.datatype !== "FP32") return this.fail(`this model takes ${message.frame.datatype}; the page sends floats`);
      this.frame = message.frame.bytes / 4; this.outputs = message.outputs;
      say(`streaming in frames of ${this.frame}${message.resumed ? ", from the last state" : ""}`);
      this.waiting.splice(0).forEach(block => this.send(block));
    } else if (message.type === "end") {
      lastToken = message.state_token; $("resume").disabled = false;
      say(`${message.frames} frames answered; ${message.reason === "draining" ? "the server is draining" : "done"}`);
    } else if (message.type === "error") this.fail(message.error);
  }
  fail(text) { say(text, true); this.socket.close(); finish(); }
  send(block) {
    if (this.over || this.socket.readyState > 1) return; // a microphone goes on for a moment
    if (!this.frame) return this.waiting.push(block);
    this.samples.push(block); this.n += block.length;
    this.socket.send(block);
    this.sent = Math.floor(this.n / this.frame);
  }
  answered(values) { this.results.push(values); draw(); }
  end() { this.over = true; if (this.socket.readyState === 1 && this.frame) this.socket.send(JSON.stringify({ type: "end" })); else this.socket.close(); }
  joined(parts) {
    const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
    parts.reduce((at, p) => (all.set(p, at), at + p.length), 0);
    return all;
  }
}

function say(text, wrong = false) { $("status").textContent = text; $("status").className = wrong ? "error" : ""; }

let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; if (run) drawWave(run); });
}

function drawWave(run) {
  const [c, width, height] = surface($("wave")), middle = height / 2, all = run.joined(run.samples), results = run.joined(run.results);
  const each = run.sent ? Math.max(1, Math.round(results.length / Math.max(1, run.sent))) : 1, shown = run.live ? SHOWN_S * run.rate : Math.max(all.length, 1);
  const from = Math.max(0, all.length - shown), per = Math.max(shown, 1) / width, audio = each === run.frame;
  const wave = (samples, name) => {
    c.fillStyle = color(name);
    for (let x = 0; x < width; x++) {
      let low = 0, high = 0;
      for (let k = Math.floor(from + x * per), end = Math.min(samples.length, from + (x + 1) * per); k < end; k += Math.max(1, per >> 6)) { low = Math.min(low, samples[k]); high = Math.max(high, samples[k]); }
      if (high > low) c.fillRect(x, middle - high * middle, 1, Math.max(1, (high - low) * middle));
    }
  };
  wave(all, "soft");
  if (audio) return wave(results, "second");
  const n = Math.min(each, 8);  // lines of one output or a few: between their least and largest, and 0 and 1
  let low = 0, high = 1;
  for (let k = 0; k < results.length; k++) if (k % each < n && Number.isFinite(results[k])) { low = Math.min(low, results[k]); high = Math.max(high, results[k]); }
  for (let o = 0; o < n; o++) {
    c.beginPath();
    for (let t = Math.max(0, Math.floor(from / run.frame)); t * each + o < results.length; t++) c.lineTo(((t + .5) * run.frame - from) / per, height - 3 - (height - 6) * (results[t * each + o] - low) / (high - low));
    c.strokeStyle = color(o ? "first" : "second"); c.lineWidth = 2; c.stroke();
  }
}

function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length)), text = (at, s) => [...s].forEach((ch, k) => view.setUint8(at + k, ch.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt "); view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true); text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, k) => view.setInt16(44 + 2 * k, Math.max(-1, Math.min(1, x)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}

function begin(live) {
  $("listen").hidden = true; $("stop").disabled = false; $("microphone").disabled = true; $("file").disabled = true;
  run = new Run(Number($("rate").value));
  run.live = live;
  run.ended.then(event => {
    if (event.code !== 1000 && event.reason) say(event.reason, true);
    finish();
  });
  return run;
}

function finish() {
  if (!run) return;
  run.source?.getTracks().forEach(track => track.stop());
  run.context?.close();
  run.source = run.context = null;
  $("stop").disabled = true; $("microphone").disabled = false; $("file").disabled = false; $("microphone").classList.remove("on");
  const results = run.joined(run.results);
  if (run.frame > 1 && run.sent && results.length === run.sent * run.frame) { $("audio").src = URL.createObjectURL(wav(results, run.rate)); $("listen").hidden = false; }
  run.live = false;
  drawWave(run);
}

$("microphone").onclick = async () => {
  const one = begin(true);
  try {
    one.source = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    one.context = new AudioContext({ sampleRate: one.rate });
    await one.context.audioWorklet.addModule("recorder.js");
    const node = new AudioWorkletNode(one.context, "recorder");
    node.port.onmessage = ({ data }) => { one.send(data); draw(); };
    one.context.createMediaStreamSource(one.source).connect(node);
    $("microphone").classList.add("on");
  } catch (error) { one.fail(`no microphone: ${error.message}`); }
};

$("stop").onclick = () => { run?.source?.getTracks().forEach(track => track.stop()); run?.end(); };

$("file").onchange = async () => {
  const [file] = $("file").files, one = begin(false);
  try {
    const sound = await new OfflineAudioContext(1, 1, one.rate).decodeAudioData(await file.arrayBuffer()), samples = new Float32Array(sound.length);
    for (let k = 0; k < sound.numberOfChannels; k++) sound.getChannelData(k).forEach((x, t) => { samples[t] += x / sound.numberOfChannels; });
    for (let at = 0; at < samples.length; at += 8192) {
      one.send(samples.slice(at, at + 8192));
      while (one.socket.bufferedAmount > 1 << 20) await new Promise(resolve => setTimeout(resolve, 10));
    }
    while (!one.frame && one.socket.readyState < 2) await new Promise(resolve => setTimeout(resolve, 10));
    one.end();
  } catch (error) { one.fail(`${file.name}: ${error.message}`); }
  $("file").value = "";
};

addEventListener("resize", () => { if (run) drawWave(run); });
