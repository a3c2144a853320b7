// WebGL2 helpers shared by the renderers.

export type Uniforms = Record<string, WebGLUniformLocation | null>;

export interface Program {
  program: WebGLProgram;
  at: Uniforms;
}

export function createProgram(gl: WebGL2RenderingContext, vertex: string, fragment: string): Program {
  const program = gl.createProgram()!;
  for (const [type, source] of [
    [gl.VERTEX_SHADER, vertex],
    [gl.FRAGMENT_SHADER, fragment],
  ] as const) {
    const shader = gl.createShader(type)!;
    gl.shaderSource(shader, `#version 300 es\nprecision highp float;precision highp int;\n${source}`);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program)!.map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`The graphics driver refuses a shader: ${logs.join(" ")} ${gl.getProgramInfoLog(program)}`);
  }
  const at: Uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(program, i)!;
    at[name] = gl.getUniformLocation(program, name);
  }
  return { program, at };
}

/** A texture of integers that is filled anew every frame, `TEXTURE_WIDTH` texels a row. */
export class DataTexture {
  private texture: WebGLTexture;
  private rows = 0;

  constructor(
    private gl: WebGL2RenderingContext,
    private channels: 1 | 4,
  ) {
    this.texture = gl.createTexture()!;
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  /** `data` must be a whole number of rows long: see `paddedLength`. */
  fill(data: Uint32Array): void {
    const { gl } = this;
    const rows = data.length / this.channels / TEXTURE_WIDTH;
    const [internal, format] = this.channels === 4 ? [gl.RGBA32UI, gl.RGBA_INTEGER] : [gl.R32UI, gl.RED_INTEGER];
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    if (rows > this.rows) {
      gl.texImage2D(gl.TEXTURE_2D, 0, internal, TEXTURE_WIDTH, rows, 0, format, gl.UNSIGNED_INT, data);
      this.rows = rows;
    } else {
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, TEXTURE_WIDTH, rows, format, gl.UNSIGNED_INT, data);
    }
  }

  bind(unit: number, location: WebGLUniformLocation | null): void {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.activeTexture(gl.TEXTURE0);
    gl.uniform1i(location, unit);
  }
}

const TEXTURE_BITS = 10;
export const TEXTURE_WIDTH = 1 << TEXTURE_BITS;

/** Elements of an array that holds `count` texels in whole rows. */
export const paddedLength = (count: number, channels = 1): number =>
  Math.max(1, Math.ceil(count / TEXTURE_WIDTH)) * TEXTURE_WIDTH * channels;

export const FETCH = `#define FETCH(t, i) texelFetch(t, ivec2(int(i) & ${TEXTURE_WIDTH - 1}, int(i) >> ${TEXTURE_BITS}), 0)\n`;

/** Two triangles for each of `count` quads, whose corners are `gl_VertexID & 3`: instancing is slow in software. */
export function quadIndices(count: number): Uint32Array {
  const indices = new Uint32Array(6 * count);
  for (let i = 0; i < count; i++) {
    for (let corner = 0; corner < 6; corner++) indices[6 * i + corner] = 4 * i + [0, 1, 2, 2, 1, 3][corner];
  }
  return indices;
}

/** An index buffer that grows with the number of quads. */
export class Quads {
  private buffer: WebGLBuffer;
  private count = 0;

  constructor(private gl: WebGL2RenderingContext) {
    this.buffer = gl.createBuffer()!;
  }

  draw(count: number): void {
    const { gl } = this;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffer);
    if (count > this.count) {
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, quadIndices(count), gl.STATIC_DRAW);
      this.count = count;
    }
    gl.drawElements(gl.TRIANGLES, 6 * count, gl.UNSIGNED_INT, 0);
  }
}
