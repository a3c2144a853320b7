// The orbit camera of ss4d/cameras.py: world z up, camera axes x right, y down, z forward.

export type Vec3 = [number, number, number];

export interface Pose {
  azimuth: number; // degrees, 0 is the front, counter-clockwise from above
  elevation: number; // degrees, -90 .. 90
  radius: number; // world units from the target
  target: Vec3;
  fov: number; // degrees across the room that the object has on the stage
}

/** Where the clip's own pictures are taken from: ss4d.cameras.Orbit. */
export interface Orbit {
  elevation: number;
  radius: number;
  fov: number;
}

export const home = (orbit: Orbit): Pose => ({ azimuth: 0, target: [0, 0, 0], ...orbit });

const RADIUS = [0.3, 8];
const REACH = 1; // of the target from the middle of the world, an axis

/** Rows: right, down, forward. */
export function axes(pose: Pose): [Vec3, Vec3, Vec3] {
  const azimuth = (pose.azimuth * Math.PI) / 180;
  const elevation = (pose.elevation * Math.PI) / 180;
  const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
  return [
    [ca, sa, 0],
    [sa * se, -ca * se, -ce],
    [-sa * ce, ca * ce, -se],
  ];
}

export const dot = (a: Vec3, b: Vec3): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** A camera as the shaders take it. */
export interface View {
  rotation: Float32Array; // 3 x 3, column by column
  translation: Vec3;
  forward: Vec3;
  focal: number; // pixels
  width: number;
  height: number;
}

/** `side`: pixels that the field of view spans, around the middle of width x height. */
export function viewOf(pose: Pose, width: number, height: number, side: number): View {
  const [right, down, forward] = axes(pose);
  const eye = pose.target.map((t, i) => t - pose.radius * forward[i]) as Vec3;
  const rows = [right, down, forward];
  return {
    rotation: new Float32Array([0, 1, 2].flatMap((column) => rows.map((row) => row[column]))),
    translation: rows.map((row) => -dot(row, eye)) as Vec3,
    forward,
    focal: (0.5 / Math.tan((pose.fov * Math.PI) / 360)) * side,
    width,
    height,
  };
}

/** Turn by a movement in degrees. */
export function turn(pose: Pose, right: number, down: number): Pose {
  const azimuth = (((pose.azimuth - right) % 360) + 360) % 360;
  return { ...pose, azimuth, elevation: Math.max(-90, Math.min(90, pose.elevation + down)) };
}

/** Move the target with a movement on the screen, in shares of the side that the field of view spans. */
export function pan(pose: Pose, right: number, down: number): Pose {
  const [x, y] = axes(pose);
  const span = 2 * pose.radius * Math.tan((pose.fov * Math.PI) / 360);
  const moved = pose.target.map((t, i) => t - span * (right * x[i] + down * y[i]));
  return { ...pose, target: moved.map((t) => Math.max(-REACH, Math.min(REACH, t))) as Vec3 };
}

/** Come nearer (factor below 1) or go away. */
export function zoom(pose: Pose, factor: number): Pose {
  return { ...pose, radius: Math.max(RADIUS[0], Math.min(RADIUS[1], pose.radius * factor)) };
}
