// Occupied voxels as shaded cubes, as ss4d/visualize.py draws them: coloured by height, lit from the viewer's left.

import type { Vec3, View } from "./camera";
import { createProgram, DataTexture, FETCH, paddedLength, Quads, type Program } from "./gl";
import type { Frame } from "./payload";

const LIGHT: Vec3 = [-0.38, -0.78, -0.5]; // towards the light, in camera axes
const AMBIENT = 0.6;
const NEAR = 0.01;
const FAR = 20;

const VERTEX = `${FETCH}
uniform highp usampler2D faces;
uniform mat3 rotation;
uniform vec3 translation, light;
uniform vec2 viewport;
uniform float focal, resolution, brightest;
out vec2 onFace;
flat out vec3 colour;

vec3 byHeight(float height) {
  vec3 c = mix(vec3(0.26, 0.35, 0.65), vec3(0.18, 0.60, 0.70), clamp(3.0 * height, 0.0, 1.0));
  c = mix(c, vec3(0.47, 0.78, 0.46), clamp(3.0 * height - 1.0, 0.0, 1.0));
  return mix(c, vec3(0.98, 0.82, 0.34), clamp(3.0 * height - 2.0, 0.0, 1.0));
}

void main() {
  uint face = FETCH(faces, gl_VertexID >> 2).x;
  vec3 voxel = vec3(face & 255u, face >> 8 & 255u, face >> 16 & 255u);
  int side = int(face >> 24), axis = side >> 1;
  onFace = vec2(gl_VertexID & 1, gl_VertexID >> 1 & 1);
  vec3 corner = vec3(0.0);
  corner[axis] = float(side & 1);
  corner[(axis + 1) % 3] = onFace.x;
  corner[(axis + 2) % 3] = onFace.y;
  vec3 camera = rotation * ((voxel + corner) / resolution - 0.5) + translation;
  float depth = (${FAR + NEAR} * camera.z - ${2 * FAR * NEAR}) / ${FAR - NEAR};
  gl_Position = vec4(2.0 * focal * camera.xy / viewport * vec2(1.0, -1.0), depth, camera.z);
  vec3 normal = vec3(0.0);
  normal[axis] = float(side & 1) * 2.0 - 1.0;
  float shade = ${AMBIENT} + ${(1 - AMBIENT).toFixed(2)} * max(dot(normal, light), 0.0);
  colour = byHeight((voxel.z + 0.5) / resolution) * shade / brightest;
}`;

const FRAGMENT = `
in vec2 onFace;
flat in vec3 colour;
out vec4 result;
void main() {
  vec2 fromEdge = min(onFace, 1.0 - onFace) / max(fwidth(onFace), 1e-5);
  result = vec4(colour * mix(0.85, 1.0, clamp(min(fromEdge.x, fromEdge.y), 0.0, 1.0)), 1.0);
}`;

export class Voxels {
  private program: Program;
  private data: DataTexture;
  private quads: Quads;
  private frame: Frame | null = null;
  private count = 0;

  constructor(
    private gl: WebGL2RenderingContext,
    private resolution: number,
  ) {
    this.program = createProgram(gl, VERTEX, FRAGMENT);
    this.data = new DataTexture(gl, 1);
    this.quads = new Quads(gl);
  }

  draw(frame: Frame, view: View): void {
    const { gl } = this;
    const { program, at } = this.program;
    if (frame !== this.frame) {
      const faces = freeFaces(frame.voxels);
      this.count = faces.length;
      const padded = new Uint32Array(paddedLength(faces.length));
      padded.set(faces);
      this.data.fill(padded);
      this.frame = frame;
    }
    if (!this.count) return;
    const { rotation } = view;
    const light = [0, 1, 2].map((column) =>
      LIGHT.reduce((sum, value, row) => sum + value * rotation[3 * column + row], 0),
    ) as Vec3;
    const brightest = AMBIENT + (1 - AMBIENT) * Math.max(...light.map(Math.abs));
    gl.useProgram(program);
    this.data.bind(0, at.faces);
    gl.uniformMatrix3fv(at.rotation, false, rotation);
    gl.uniform3fv(at.translation, view.translation);
    gl.uniform3fv(at.light, light);
    gl.uniform2f(at.viewport, view.width, view.height);
    gl.uniform1f(at.focal, view.focal);
    gl.uniform1f(at.resolution, this.resolution);
    gl.uniform1f(at.brightest, brightest);
    gl.disable(gl.BLEND);
    gl.enable(gl.DEPTH_TEST);
    this.quads.draw(this.count);
  }
}

/** Sides without a neighbour: voxel, and in the top byte twice the axis, plus 1 on its upper side. */
function freeFaces(voxels: Uint32Array): Uint32Array {
  const occupied = new Set(voxels);
  const faces: number[] = [];
  for (const voxel of voxels) {
    for (let side = 0; side < 6; side++) {
      const shift = 8 * (side >> 1);
      const next = ((voxel >> shift) & 255) + (side & 1 ? 1 : -1);
      const free = next < 0 || next > 255 || !occupied.has((voxel & ~(255 << shift)) | (next << shift));
      if (free) faces.push(voxel | (side << 24));
    }
  }
  return Uint32Array.from(faces);
}
