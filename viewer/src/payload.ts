// Undoes what ss4d/viewer/payload.py did: text to bytes, bytes to planes, planes to the texels the renderers read.

/** The bounds and numbers of bits that a clip was quantised with. */
export interface Ranges {
  origin: [number, number, number]; // lowest corner of the cube, world units
  size: number; // side of the cube, world units
  scale: [number, number]; // natural logarithms
  opacity: [number, number];
  colour: [number, number];
  rotation: [number, number]; // x / w, y / w, z / w of the quaternion
  bits: { grid: number; position: number; scale: number; rotation: number; opacity: number; colour: number };
}

/**
 * One frame, unpacked. Four 32-bit words a Gaussian, least significant bits first:
 * x 12, y 12, scale 8 | z 12, scale 8, scale 8 | rotation 8 8 8, opacity 8 | red 8, green 8, blue 8.
 */
export interface Frame {
  count: number;
  texels: Uint32Array;
  voxels: Uint32Array; // x 8, y 8, z 8
}

const UNSAFE = [0x00, 0x0d, 0x3c]; // written as U+0080, U+0081 and U+0082

/** Characters of seven bits each to bytes. */
export function fromText(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array((text.length * 7) >> 3);
  let bits = 0;
  let held = 0;
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    bits = ((bits << 7) | (code < 128 ? code : UNSAFE[code - 128])) & 0x7fff;
    held += 7;
    if (held >= 8) {
      held -= 8;
      bytes[at++] = bits >> held;
    }
  }
  return bytes;
}

/** Raw deflate. The text's last character may hold a padding byte too many, which is no part of the stream. */
export async function inflate(data: Uint8Array<ArrayBuffer>, size: number): Promise<Uint8Array> {
  const out = new Uint8Array(size);
  const reader = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  let at = 0;
  while (at < size) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`The data of a frame ends after ${at} of ${size} bytes.`);
    out.set(value, at);
    at += value.length;
  }
  await reader.cancel();
  return out;
}

/** Bytes of the planes of a frame, header included. */
export const planesSize = (gaussians: number, voxels: number): number => 8 + 16 * gaussians + 3 * voxels;

export function unpack(data: Uint8Array, ranges: Ranges): Frame {
  const header = new DataView(data.buffer, data.byteOffset, 8);
  const count = header.getUint32(0, true);
  const voxelCount = header.getUint32(4, true);
  const texels = new Uint32Array(4 * count);
  const plane = (index: number) => data.subarray(8 + index * count, 8 + (index + 1) * count);
  const [low, middle, high, px, py, pz, s0, s1, s2, r0, r1, r2, opacity, red, green, blue] = Array.from(
    { length: 16 },
    (_, i) => plane(i),
  );
  const shift = ranges.bits.position;
  let code = 0;
  for (let i = 0; i < count; i++) {
    code += low[i] | (middle[i] << 8) | (high[i] << 16);
    const x = (everyThirdBit(code) << shift) | px[i];
    const y = (everyThirdBit(code >> 1) << shift) | py[i];
    const z = (everyThirdBit(code >> 2) << shift) | pz[i];
    texels[4 * i] = x | (y << 12) | (s0[i] << 24);
    texels[4 * i + 1] = z | (s1[i] << 12) | (s2[i] << 20);
    texels[4 * i + 2] = r0[i] | (r1[i] << 8) | (r2[i] << 16) | (opacity[i] << 24);
    texels[4 * i + 3] = red[i] | (green[i] << 8) | (blue[i] << 16);
  }
  return { count, texels, voxels: unpackVoxels(data.subarray(8 + 16 * count), voxelCount) };
}

function unpackVoxels(data: Uint8Array, count: number): Uint32Array {
  const voxels = new Uint32Array(count);
  let code = 0;
  for (let i = 0; i < count; i++) {
    code += data[i] | (data[count + i] << 8) | (data[2 * count + i] << 16);
    voxels[i] = everyThirdBit(code) | (everyThirdBit(code >> 1) << 8) | (everyThirdBit(code >> 2) << 16);
  }
  return voxels;
}

/** Bits 0, 3, 6 ... 21 as bits 0 ... 7. */
function everyThirdBit(code: number): number {
  let x = code & 0x249249;
  x = (x | (x >> 2)) & 0x0c30c3;
  x = (x | (x >> 4)) & 0x00f00f;
  return (x | (x >> 8)) & 0xff;
}
