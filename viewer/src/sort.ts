// Back to front, by counting: depths fall into 65,536 bins.

import type { Vec3 } from "./camera";

const BINS = 65536;
const counts = new Uint32Array(BINS + 1);
let depths = new Float32Array(0);
let bins = new Uint16Array(0);

/** Writes the indices of `count` Gaussians into `order`, the furthest along `forward` first. */
export function sortByDepth(texels: Uint32Array, count: number, forward: Vec3, order: Uint32Array): void {
  if (depths.length < count) {
    depths = new Float32Array(count);
    bins = new Uint16Array(count);
  }
  const [fx, fy, fz] = forward;
  let nearest = Infinity;
  let furthest = -Infinity;
  for (let i = 0; i < count; i++) {
    const a = texels[4 * i];
    const depth = fx * (a & 0xfff) + fy * ((a >>> 12) & 0xfff) + fz * (texels[4 * i + 1] & 0xfff);
    depths[i] = depth;
    if (depth < nearest) nearest = depth;
    if (depth > furthest) furthest = depth;
  }
  const perUnit = (BINS - 1) / Math.max(furthest - nearest, 1e-6);
  counts.fill(0);
  for (let i = 0; i < count; i++) {
    const bin = (furthest - depths[i]) * perUnit;
    bins[i] = bin;
    counts[bins[i] + 1]++;
  }
  for (let bin = 1; bin <= BINS; bin++) counts[bin] += counts[bin - 1];
  for (let i = 0; i < count; i++) order[counts[bins[i]]++] = i;
}
