// What is on the stage: one frame of the clip, one camera, one kind of picture. Drawn only when something changed.

import { home, viewOf, type Pose } from "./camera";
import type { Clip } from "./clip";
import type { Frame } from "./payload";
import { Playback } from "./playback";
import { wholeStage, type Room } from "./room";
import { Splats } from "./splats";
import { Voxels } from "./voxels";

export type Kind = "gaussians" | "voxels";
export type Colour = [number, number, number] | null; // sRGB in [0, 1]; null is transparent

const PIXELS_MAX = 2; // of the screen, a CSS pixel
const RATE_WINDOW = 2000; // milliseconds over which the frame rate is counted

export class Player {
  readonly playback: Playback;
  index = 0; // of the frame on the stage
  broken = false; // the frame that was to be shown last cannot be
  kind: Kind = "gaussians";
  background: Colour = [1, 1, 1];
  private pose: Pose;
  private frame: Frame | null = null;
  private wanted = 0;
  private dirty = false;
  private drawn: number[] = []; // times of the latest pictures
  private gl: WebGL2RenderingContext;
  private splats!: Splats;
  private voxels!: Voxels;

  constructor(
    readonly clip: Clip,
    private canvas: HTMLCanvasElement,
    private room: () => Room, // where the object goes
    private changed: () => void, // called after every picture
    private failed: (reason: unknown) => void,
  ) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, powerPreference: "high-performance" });
    if (!gl) throw new Error("This browser offers no WebGL 2, which the player draws with.");
    this.gl = gl;
    this.pose = home(clip.header.camera);
    this.playback = new Playback(clip.length, clip.header.fps);
    this.createRenderers();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.createRenderers();
      this.redraw();
    });
    new ResizeObserver(() => this.redraw()).observe(canvas);
    const tick = (now: number): void => {
      this.tick(now);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  private createRenderers(): void {
    const { ranges, kernel, resolution } = this.clip.header;
    this.splats = new Splats(this.gl, ranges, kernel);
    this.voxels = new Voxels(this.gl, resolution);
  }

  /** Show a frame as soon as it is decoded; the latest call wins. Resolves when it is on the stage or overtaken. */
  async show(index: number): Promise<void> {
    this.wanted = index;
    try {
      const frame = await this.clip.frame(index);
      if (this.wanted !== index) return;
      [this.frame, this.index, this.broken] = [frame, index, false];
      this.draw();
      this.clip.frame(this.playback.next(index)).catch(() => {}); // it is told when that frame is to be shown
    } catch (reason) {
      if (this.wanted !== index) return;
      this.broken = true;
      this.playback.pause();
      if (this.frame) this.changed(); // it no longer plays
      this.failed(reason);
    }
  }

  get camera(): Pose {
    return this.pose;
  }

  set camera(pose: Pose) {
    this.pose = pose;
    this.redraw();
  }

  redraw(): void {
    this.dirty = true;
  }

  togglePlay(): void {
    if (this.playback.playing) this.playback.pause();
    else void this.show(this.playback.play(this.index, performance.now()));
    this.redraw();
  }

  /** Pictures a second, while the picture moves. */
  get rate(): number {
    const [first, last] = [this.drawn[0], this.drawn[this.drawn.length - 1]];
    if (this.drawn.length < 2 || performance.now() - last > RATE_WINDOW) return 0;
    return (1000 * (this.drawn.length - 1)) / (last - first);
  }

  /** A PNG in the size of the stage; it shows no controls, so the object has all of it. */
  picture(): Promise<Blob> {
    const { canvas } = this;
    this.draw(wholeStage(canvas.clientWidth, canvas.clientHeight));
    const encoded = new Promise<Blob>((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture cannot be encoded.")))),
    );
    this.draw(); // before the screen shows the other one
    return encoded;
  }

  private tick(now: number): void {
    const ready = this.wanted === this.index && this.frame;
    if (ready && this.playback.playing) {
      const next = this.playback.advance(this.index, now);
      if (next !== this.index) void this.show(next);
      else if (!this.playback.playing) this.redraw(); // it came to its end
    }
    if (this.dirty) this.draw();
  }

  private draw(room = this.room()): void {
    this.dirty = false;
    const { gl, canvas, frame } = this;
    const scale = Math.min(window.devicePixelRatio, PIXELS_MAX);
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (!frame || !width || !height || gl.isContextLost()) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.clearColor(...(this.background ?? [0, 0, 0]), this.background ? 1 : 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    // The viewport's middle is the room's, so it reaches beyond the canvas where the room is not in the middle.
    const [x, y] = [scale * room.x, height - scale * room.y].map((value) => Math.round(2 * value) / 2);
    const [across, up] = [2 * Math.max(x, width - x), 2 * Math.max(y, height - y)];
    gl.viewport(x - across / 2, y - up / 2, across, up);
    const view = viewOf(this.pose, across, up, scale * room.side);
    if (this.kind === "gaussians") this.splats.draw(frame, view);
    else this.voxels.draw(frame, view);
    const now = performance.now();
    this.drawn.push(now);
    while (this.drawn.length > 1 && now - this.drawn[0] > RATE_WINDOW) this.drawn.shift();
    this.changed();
  }
}
