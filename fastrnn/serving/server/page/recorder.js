// Hands a microphone's samples to the page, 2048 at a time.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(2048);
    this.n = 0;
  }
  process([input]) {
    for (const x of input[0] ?? []) {
      this.block[this.n++] = x;
      if (this.n === this.block.length) {
        this.port.postMessage(this.block);
        this.block = new Float32Array(2048);
        this.n = 0;
      }
    }
    return true;
  }
}
registerProcessor("recorder", Recorder);
