// Which frame comes when. A slow machine plays slower, it leaves no frame out.

export type Loop = "loop" | "bounce" | "once";
export const LOOPS: Loop[] = ["loop", "bounce", "once"];
export const SPEEDS = [0.25, 0.5, 1, 2, 4];

export class Playback {
  playing = false;
  speed = 1;
  loop: Loop = "loop";
  private direction = 1;
  private due = 0; // time of the next frame, milliseconds

  constructor(
    private length: number,
    private fps: number,
  ) {}

  play(index: number, now: number): number {
    this.playing = this.length > 1;
    this.direction = 1;
    this.due = now + this.interval;
    return this.loop === "once" && index === this.length - 1 ? 0 : index;
  }

  pause(): void {
    this.playing = false;
  }

  /** The frame to show at `now`, which is `index` until the next is due. */
  advance(index: number, now: number): number {
    if (!this.playing || now < this.due) return index;
    this.due = Math.max(this.due + this.interval, now); // no hurry after a delay
    const next = this.next(index);
    if (next === index) this.playing = false;
    this.direction = next < index ? -1 : 1;
    return next;
  }

  /** The frame that follows `index`, without regard to time; itself at the end. */
  next(index: number): number {
    const last = this.length - 1;
    const next = index + (this.loop === "bounce" ? this.direction : 1);
    if (next >= 0 && next <= last) return next;
    if (this.loop === "loop") return 0;
    return this.loop === "bounce" && last > 0 ? 2 * index - next : index;
  }

  private get interval(): number {
    return 1000 / (this.fps * this.speed);
  }
}
