// BIP340 verification over secp256k1, from the BIP's text. Only public data passes through it, so it need not take constant time.
import { createHash } from "node:crypto";

const p = 2n ** 256n - 2n ** 32n - 977n;
const n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const G = {
  x: 0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
  y: 0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
  z: 1n,
};
const infinity = { x: 1n, y: 1n, z: 0n };

const mod = (a) => ((a % p) + p) % p;

function power(base, exponent) {
  let result = 1n;
  for (let b = mod(base); exponent > 0n; exponent >>= 1n, b = (b * b) % p) {
    if (exponent & 1n) result = (result * b) % p;
  }
  return result;
}

// Points are Jacobian: (x/z², y/z³), z = 0 at infinity.
function double(a) {
  if (a.z === 0n) return infinity;
  const yy = (a.y * a.y) % p;
  const s = (4n * a.x * yy) % p;
  const m = (3n * a.x * a.x) % p;
  const x = mod(m * m - 2n * s);
  return { x, y: mod(m * (s - x) - 8n * yy * yy), z: (2n * a.y * a.z) % p };
}

function add(a, b) {
  if (a.z === 0n) return b;
  if (b.z === 0n) return a;
  const za = (a.z * a.z) % p, zb = (b.z * b.z) % p;
  const ua = (a.x * zb) % p, ub = (b.x * za) % p;
  const sa = (a.y * zb * b.z) % p, sb = (b.y * za * a.z) % p;
  if (ua === ub) return sa === sb ? double(a) : infinity;
  const h = mod(ub - ua), r = mod(sb - sa);
  const hh = (h * h) % p, hhh = (hh * h) % p, v = (ua * hh) % p;
  const x = mod(r * r - hhh - 2n * v);
  return { x, y: mod(r * (v - x) - sa * hhh), z: (h * a.z * b.z) % p };
}

function multiply(point, scalar) {
  let result = infinity;
  for (let bits = scalar.toString(2), i = 0; i < bits.length; i++) {
    result = double(result);
    if (bits[i] === "1") result = add(result, point);
  }
  return result;
}

const number = (bytes) => BigInt("0x" + (Buffer.from(bytes).toString("hex") || "0"));

// lift is the point with this x and an even y; null if there is none.
function lift(x) {
  if (x >= p) return null;
  const c = mod(x ** 3n + 7n);
  const y = power(c, (p + 1n) / 4n);
  if ((y * y) % p !== c) return null;
  return { x, y: y & 1n ? p - y : y, z: 1n };
}

export const sha256 = (...parts) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

// taggedHash is H(tag; data) of docs/protocol.md section 4.
export function taggedHash(tag, ...data) {
  const t = sha256(tag);
  return sha256(t, t, ...data);
}

// verify tells whether a 64-byte signature is this 32-byte key's over a 32-byte message.
export function verify(key, message, signature) {
  const P = lift(number(key));
  const r = number(signature.subarray(0, 32)), s = number(signature.subarray(32, 64));
  if (P === null || r >= p || s >= n) return false;
  const e = number(taggedHash("BIP0340/challenge", signature.subarray(0, 32), key, message)) % n;
  const R = add(multiply(G, s), multiply(P, e === 0n ? 0n : n - e));
  if (R.z === 0n) return false;
  const zz = (R.z * R.z) % p;
  if (R.x !== (r * zz) % p) return false;
  const y = (R.y * power(zz * R.z, p - 2n)) % p;
  return (y & 1n) === 0n;
}
