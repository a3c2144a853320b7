// Wires the page to the player. The page calls `ss4d.start()` when its first frame has been read.

import { home, zoom, type Pose } from "./camera";
import { Clip, type Header } from "./clip";
import { Controls } from "./controls";
import { LOOPS, SPEEDS } from "./playback";
import { Player, type Colour } from "./player";
import { roomOn, type Room } from "./room";

const PRESETS: [string, Partial<Pose>][] = [
  ["Front", { azimuth: 0 }],
  ["Right", { azimuth: 90 }],
  ["Back", { azimuth: 180 }],
  ["Left", { azimuth: 270 }],
  ["Top", { azimuth: 0, elevation: 89 }],
  ["Corner", { azimuth: 35, elevation: 25 }],
];
const BACKGROUNDS: [string, Colour][] = [
  ["White", [1, 1, 1]],
  ["Grey", [0.5, 0.5, 0.5]],
  ["Night", [0.07, 0.08, 0.1]],
  ["Transparent", null],
];
const ZOOM_STEP = 0.85;
const TURN_STEP = 10; // degrees
// Keys that act again while they are held; the others switch something.
const REPEATED = new Set(["arrowleft", "arrowright", "a", "d", "+", "=", "-"]);

const byId = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;

class Page {
  readonly player: Player;
  private background = 0;
  private images: HTMLImageElement[];
  private timeline = byId<HTMLInputElement>("timeline");

  constructor(header: Header) {
    document.title = header.title;
    byId("title").textContent = header.title;
    const clip = new Clip(header);
    this.player = new Player(
      clip,
      byId<HTMLCanvasElement>("canvas"),
      room,
      () => this.refresh(),
      (reason) => fail(reason),
    );
    new Controls(
      byId("canvas"),
      () => this.player.camera,
      (pose) => (this.player.camera = pose),
      () => room().side,
    );
    this.images = header.input.map((url) => {
      const image = new Image();
      image.src = url;
      return image;
    });
    document.body.classList.toggle("with-input", this.images.length > 0);
    this.timeline.max = String(clip.length - 1);
    document.body.classList.toggle("still", clip.length < 2);
    if (!document.fullscreenEnabled) byId("fullscreen").style.display = "none"; // phones, and frames without the right
    this.bind();
    setInterval(() => this.refreshRate(), 500);
  }

  private bind(): void {
    const actions: Record<string, () => void> = {
      play: () => this.player.togglePlay(),
      previous: () => this.step(-1),
      next: () => this.step(1),
      speed: () => this.cycleSpeed(1),
      loop: () => this.cycleLoop(),
      kind: () => this.toggleKind(),
      background: () => this.cycleBackground(),
      input: () => this.toggleInput(),
      screenshot: () => void this.screenshot(),
      fullscreen: () => toggleFullscreen(),
      help: () => byId<HTMLDialogElement>("keys").showModal(),
    };
    for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
    PRESETS.forEach(([name], index) => {
      const button = document.createElement("button");
      button.textContent = name;
      button.title = `${name} view (${index + 1})`;
      button.addEventListener("click", () => this.preset(index));
      byId("presets").append(button);
    });
    byId("side").addEventListener("click", () => document.body.classList.toggle("split"));
    byId("side").addEventListener("transitionend", () => this.player.redraw());
    this.timeline.addEventListener("input", () => {
      this.player.playback.pause();
      void this.player.show(Number(this.timeline.value));
    });
    const keys: Record<string, () => void> = {
      " ": actions.play,
      arrowleft: actions.previous,
      arrowright: actions.next,
      home: () => this.seek(0),
      end: () => this.seek(this.player.clip.length - 1),
      ",": () => this.cycleSpeed(-1),
      ".": () => this.cycleSpeed(1),
      l: actions.loop,
      v: actions.kind,
      b: actions.background,
      i: actions.input,
      s: actions.screenshot,
      f: actions.fullscreen,
      r: () => (this.player.camera = this.home()),
      a: () => this.turn(-TURN_STEP),
      d: () => this.turn(TURN_STEP),
      "+": () => this.zoom(ZOOM_STEP),
      "=": () => this.zoom(ZOOM_STEP),
      "-": () => this.zoom(1 / ZOOM_STEP),
      "?": actions.help,
    };
    PRESETS.forEach((_, index) => (keys[String(index + 1)] = () => this.preset(index)));
    addEventListener("keydown", (event) => {
      const action = keys[event.key.toLowerCase()];
      if (event.repeat && !REPEATED.has(event.key.toLowerCase())) return;
      if (!action || event.ctrlKey || event.metaKey || event.altKey || byId<HTMLDialogElement>("keys").open) return;
      event.preventDefault(); // a focused button or the slider would act as well
      action();
    });
  }

  private step(by: number): void {
    const { player } = this;
    this.seek((player.index + by + player.clip.length) % player.clip.length);
  }

  private seek(index: number): void {
    this.player.playback.pause();
    void this.player.show(index);
  }

  private cycleSpeed(by: number): void {
    const { playback } = this.player;
    playback.speed = SPEEDS[(SPEEDS.indexOf(playback.speed) + by + SPEEDS.length) % SPEEDS.length];
    this.player.redraw();
  }

  private cycleLoop(): void {
    const { playback } = this.player;
    playback.loop = LOOPS[(LOOPS.indexOf(playback.loop) + 1) % LOOPS.length];
    this.player.redraw();
  }

  private toggleKind(): void {
    this.player.kind = this.player.kind === "gaussians" ? "voxels" : "gaussians";
    this.player.redraw();
  }

  private cycleBackground(): void {
    this.background = (this.background + 1) % BACKGROUNDS.length;
    this.player.background = BACKGROUNDS[this.background][1];
    this.player.redraw();
  }

  private toggleInput(): void {
    document.body.classList.toggle("input-hidden");
    this.player.redraw();
  }

  private preset(index: number): void {
    this.player.camera = { ...this.home(), ...PRESETS[index][1] };
  }

  private home(): Pose {
    return home(this.player.clip.header.camera);
  }

  private turn(degrees: number): void {
    const { camera } = this.player;
    this.player.camera = { ...camera, azimuth: (camera.azimuth + degrees + 360) % 360 };
  }

  private zoom(factor: number): void {
    this.player.camera = zoom(this.player.camera, factor);
  }

  private async screenshot(): Promise<void> {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await this.player.picture());
    link.download = `${this.player.clip.header.title}-${String(this.player.index).padStart(5, "0")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** Everything on the page that depends on the player, after every picture. */
  private refresh(): void {
    const { player } = this;
    const { playback, clip, index, kind } = player;
    const [name, colour] = BACKGROUNDS[this.background];
    document.body.classList.toggle("failed", player.broken);
    document.body.classList.add("ready");
    document.body.classList.toggle("playing", playback.playing);
    document.body.classList.toggle("transparent", colour === null);
    document.body.classList.toggle("voxels", kind === "voxels");
    byId("stage").style.background = colour ? `rgb(${colour.map((c) => Math.round(255 * c)).join(" ")})` : "";
    byId("background").title = `Background: ${name} (B)`;
    byId("kind").textContent = kind === "gaussians" ? "Gaussians" : "Voxels";
    byId("play").title = playback.playing ? "Pause (Space)" : "Play (Space)";
    byId("speed").textContent = `${playback.speed}×`;
    byId("loop").textContent = { loop: "Loop", bounce: "Bounce", once: "Once" }[playback.loop];
    byId("time").textContent = `${index + 1} / ${clip.length}`;
    const count = kind === "gaussians" ? clip.header.gaussians[index] : clip.header.voxels[index];
    byId("count").textContent = `${count.toLocaleString("en")} ${kind === "gaussians" ? "Gaussians" : "voxels"}`;
    this.timeline.value = String(index);
    this.timeline.style.setProperty("--share", String(index / Math.max(clip.length - 1, 1)));
    const image = this.images[index];
    const shown = byId<HTMLImageElement>("input-frame");
    if (image && shown.src !== image.src) shown.src = image.src;
    this.refreshRate();
  }

  private refreshRate(): void {
    const { rate } = this.player;
    byId("rate").textContent = rate ? `${rate.toFixed(rate < 10 ? 1 : 0)} fps` : "";
  }
}

/** The room that the controls leave the object. */
function room(): Room {
  const boxOf = (query: string): DOMRect => document.querySelector(query)!.getBoundingClientRect();
  const panel = boxOf("#side");
  return roomOn(boxOf("#canvas"), [boxOf("header"), boxOf("#tools")], boxOf("footer"), panel.width ? panel : null);
}

function toggleFullscreen(): void {
  if (document.fullscreenElement) void document.exitFullscreen();
  else if (document.fullscreenEnabled)
    void document.documentElement.requestFullscreen().catch((reason) => console.warn(reason)); // refused: no harm
}

function fail(reason: unknown): void {
  const message = reason instanceof Error ? reason.message : String(reason);
  document.body.classList.add("failed");
  byId("message").textContent = message;
  console.error(message);
}

// The page calls `ss4d.start()` after its first frame: a file that ends before it says so.
addEventListener("DOMContentLoaded", () => {
  if (!window.ss4d.player && !document.body.classList.contains("failed")) fail("The file is cut short.");
});

declare global {
  interface Window {
    ss4d: { start: () => void; player?: Player };
  }
}

window.ss4d = {
  start(): void {
    try {
      if (typeof DecompressionStream === "undefined")
        throw new Error("This browser is too old for the player: use one from 2023 or later.");
      const { player } = new Page(JSON.parse(byId("clip").textContent!));
      window.ss4d.player = player;
      void player.show(0);
    } catch (reason) {
      fail(reason);
    }
  },
};
