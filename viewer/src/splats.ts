// Gaussians by EWA splatting, as ss4d/gaussians/rasterize.py defines it: the same screen filter, opacity
// compensation, cutoff and bounds, so that the picture is the rasteriser's.

import type { View } from "./camera";
import { createProgram, DataTexture, FETCH, paddedLength, Quads, type Program } from "./gl";
import type { Frame, Ranges } from "./payload";
import { sortByDepth } from "./sort";

const VERTEX = `${FETCH}
uniform highp usampler2D gaussians, order;
uniform mat3 rotation;
uniform vec3 translation, origin;
uniform vec2 viewport;
uniform float focal, cell, kernel;
uniform vec2 scales, turns, opacities, colours; // of each: what 0 means, and one step
out vec2 sigmas;
flat out vec4 colour;

mat3 rotationOf(vec3 xyz) { // of the quaternion whose real part is 1 before it is normalised
  vec4 q = vec4(1.0, xyz) * inversesqrt(1.0 + dot(xyz, xyz));
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
              2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
              2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // not drawn
  uint index = FETCH(order, gl_VertexID >> 2).x;
  uvec4 p = FETCH(gaussians, index);
  vec3 centre = origin + cell * (vec3(p.x & 4095u, p.x >> 12 & 4095u, p.y & 4095u) + 0.5);
  vec3 camera = rotation * centre + translation;
  if (camera.z <= 0.01) return;

  vec3 scale = exp(scales.x + scales.y * vec3(p.x >> 24, p.y >> 12 & 255u, p.y >> 20 & 255u));
  mat3 axes = rotation * rotationOf(turns.x + turns.y * vec3(p.z & 255u, p.z >> 8 & 255u, p.z >> 16 & 255u));
  axes = mat3(axes[0] * scale.x, axes[1] * scale.y, axes[2] * scale.z);
  vec2 limit = 0.65 * viewport / focal; // slopes at which the Jacobian is taken
  vec2 slope = clamp(camera.xy / camera.z, -limit, limit);
  vec3 depths = vec3(axes[0].z, axes[1].z, axes[2].z);
  vec3 rowX = focal / camera.z * (vec3(axes[0].x, axes[1].x, axes[2].x) - slope.x * depths);
  vec3 rowY = focal / camera.z * (vec3(axes[0].y, axes[1].y, axes[2].y) - slope.y * depths);
  float xx = dot(rowX, rowX), xy = dot(rowX, rowY), yy = dot(rowY, rowY);
  vec3 normal = cross(rowX, rowY);
  float before = dot(normal, normal);
  float after = before + kernel * (xx + yy) + kernel * kernel;
  float opacity = (opacities.x + opacities.y * float(p.z >> 24)) * sqrt(max(before, 1e-12) / after);
  float cutoff = log(255.0 * opacity);
  if (cutoff < 0.0) return;

  // Half axes of the ellipse, from the eigenvalues of the covariance.
  xx += kernel;
  yy += kernel;
  float middle = 0.5 * (xx + yy), spread = length(vec2(0.5 * (xx - yy), xy));
  float major = middle + spread, minor = after / major;
  vec2 direction = normalize(xx > yy ? vec2(major - yy + 1e-9, xy) : vec2(xy, major - xx + 1e-9));
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1 & 1) * 2.0 - 1.0;
  sigmas = corner * sqrt(2.0 * cutoff);
  vec2 offset = sigmas.x * sqrt(major) * direction + sigmas.y * sqrt(minor) * vec2(-direction.y, direction.x);
  vec2 pixel = focal * camera.xy / camera.z + offset;
  gl_Position = vec4(2.0 * pixel / viewport * vec2(1.0, -1.0), 0.0, 1.0);
  colour = vec4(colours.x + colours.y * vec3(p.w & 255u, p.w >> 8 & 255u, p.w >> 16 & 255u), opacity);
}`;

const FRAGMENT = `
in vec2 sigmas;
flat in vec4 colour;
out vec4 result;
void main() {
  float alpha = min(0.999, colour.a * exp(-0.5 * dot(sigmas, sigmas)));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(colour.rgb * alpha, alpha);
}`;

/** Lowest value and step of a channel with `bits` bits. */
const steps = ([low, high]: [number, number], bits: number): [number, number] => [low, (high - low) / (2 ** bits - 1)];

export class Splats {
  private program: Program;
  private data: DataTexture;
  private orderTexture: DataTexture;
  private order = new Uint32Array(0);
  private quads: Quads;
  private frame: Frame | null = null;

  constructor(
    private gl: WebGL2RenderingContext,
    private ranges: Ranges,
    private kernel: number,
  ) {
    this.program = createProgram(gl, VERTEX, FRAGMENT);
    this.data = new DataTexture(gl, 4);
    this.orderTexture = new DataTexture(gl, 1);
    this.quads = new Quads(gl);
  }

  draw(frame: Frame, view: View): void {
    const { gl, ranges } = this;
    const { program, at } = this.program;
    if (!frame.count) return;
    if (frame !== this.frame) {
      const length = paddedLength(frame.count, 4);
      const padded = frame.texels.length === length ? frame.texels : new Uint32Array(length);
      if (padded !== frame.texels) padded.set(frame.texels);
      this.data.fill(padded);
      this.frame = frame;
    }
    if (this.order.length !== paddedLength(frame.count)) this.order = new Uint32Array(paddedLength(frame.count));
    sortByDepth(frame.texels, frame.count, view.forward, this.order);
    this.orderTexture.fill(this.order);

    gl.useProgram(program);
    this.data.bind(0, at.gaussians);
    this.orderTexture.bind(1, at.order);
    gl.uniformMatrix3fv(at.rotation, false, view.rotation);
    gl.uniform3fv(at.translation, view.translation);
    gl.uniform2f(at.viewport, view.width, view.height);
    gl.uniform1f(at.focal, view.focal);
    gl.uniform1f(at.kernel, this.kernel);
    gl.uniform3fv(at.origin, ranges.origin);
    gl.uniform1f(at.cell, ranges.size / 2 ** (ranges.bits.grid + ranges.bits.position));
    gl.uniform2fv(at.scales, steps(ranges.scale, ranges.bits.scale));
    gl.uniform2fv(at.turns, steps(ranges.rotation, ranges.bits.rotation));
    gl.uniform2fv(at.opacities, steps(ranges.opacity, ranges.bits.opacity));
    gl.uniform2fv(at.colours, steps(ranges.colour, ranges.bits.colour));
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.quads.draw(frame.count);
  }
}
