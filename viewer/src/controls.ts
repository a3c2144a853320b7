// Mouse, pen and touch on the stage: one pointer turns, two pan and pinch, right button or shift pans, wheel zooms.

import { pan, turn, zoom, type Pose } from "./camera";

const TURN = 0.45; // degrees a CSS pixel
const WHEEL = 0.0012; // of the logarithm of the distance, a CSS pixel of scrolling

export class Controls {
  private pointers = new Map<number, { x: number; y: number }>();

  constructor(
    private stage: HTMLElement,
    private pose: () => Pose,
    private move: (pose: Pose) => void,
    private side: () => number, // CSS pixels that the field of view spans
  ) {
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"] as const)
      stage.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  private down(event: PointerEvent): void {
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  private moved(event: PointerEvent): void {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const before = this.gesture();
    const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const side = this.side();
    if (this.pointers.size >= 2) {
      const after = this.gesture();
      const moved = pan(this.pose(), (after.x - before.x) / side, (after.y - before.y) / side);
      this.move(zoom(moved, before.spread / after.spread));
    } else if (event.shiftKey || event.buttons & 6) {
      this.move(pan(this.pose(), dx / side, dy / side));
    } else {
      this.move(turn(this.pose(), TURN * dx, TURN * dy));
    }
  }

  /** The middle of all pointers and their mean distance from it. */
  private gesture(): { x: number; y: number; spread: number } {
    const points = [...this.pointers.values()];
    const x = points.reduce((sum, point) => sum + point.x, 0) / points.length;
    const y = points.reduce((sum, point) => sum + point.y, 0) / points.length;
    const spread = points.reduce((sum, point) => sum + Math.hypot(point.x - x, point.y - y), 0) / points.length;
    return { x, y, spread: Math.max(spread, 1) };
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, this.stage.clientHeight][event.deltaMode];
    this.move(zoom(this.pose(), Math.exp(WHEEL * pixels)));
  }
}
