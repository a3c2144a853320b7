// The clip that the page carries: a header, and a script element of text for every frame, decoded when it is needed.

import type { Orbit } from "./camera";
import { fromText, inflate, planesSize, unpack, type Frame, type Ranges } from "./payload";

export interface Header {
  title: string;
  fps: number;
  camera: Orbit; // where the page opens
  kernel: number; // variance of the screen filter, pixels^2
  ranges: Ranges;
  resolution: number; // voxels along one side of the cube
  gaussians: number[]; // of each frame
  voxels: number[];
  input: string[]; // data URLs of the input's frames; empty where there is none
}

const CACHE_BYTES = 384 * 2 ** 20; // of decoded frames
const POLL = 30; // milliseconds between two looks for a frame that the browser has not read yet

export class Clip {
  private frames = new Map<number, Promise<Frame>>(); // least recently used first

  constructor(readonly header: Header) {}

  get length(): number {
    return this.header.gaussians.length;
  }

  frame(index: number): Promise<Frame> {
    const frame = this.frames.get(index) ?? this.decode(index);
    this.frames.delete(index);
    this.frames.set(index, frame);
    const bytes = 16 * Math.max(...this.header.gaussians);
    while (this.frames.size > 2 && this.frames.size * bytes > CACHE_BYTES)
      this.frames.delete(this.frames.keys().next().value!);
    return frame;
  }

  private async decode(index: number): Promise<Frame> {
    const text = await this.text(index);
    const size = planesSize(this.header.gaussians[index], this.header.voxels[index]);
    return unpack(await inflate(fromText(text), size), this.header.ranges);
  }

  /** Waits while the browser still reads the page: frames come one after another. */
  private async text(index: number): Promise<string> {
    for (;;) {
      const whole = document.readyState !== "loading";
      // The next element is there, so this one is complete.
      const element = document.getElementById(`frame-${index}`);
      if (element && (whole || element.nextElementSibling)) return element.textContent!;
      if (whole) throw new Error(`Frame ${index + 1} is missing: the file is cut short.`);
      await new Promise((resolve) => setTimeout(resolve, POLL));
    }
  }
}
