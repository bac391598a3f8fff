// The protocol's bytes once more, after docs/protocol.md and on libsodium: it
// shares no line with the Go code that made the vectors.
import { createHash, hkdfSync } from 'node:crypto';
import { createRequire } from 'node:module';

export const sodium = createRequire(new URL('.cache/', import.meta.url))('libsodium-wrappers');
await sodium.ready;

/** A refusal with its class. */
export class Refusal extends Error {}
export const refuse = (name) => { throw new Refusal(name); };
export const need = (ok, name) => ok || refuse(name);

export const hex = (b) => Buffer.from(b).toString('hex');
export const unhex = (s) => Buffer.from(s ?? '', 'hex');
export const unbase64 = (s) => Buffer.from(s ?? '', 'base64');
export const same = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0;
export const sha256 = (b) => createHash('sha256').update(b).digest();

const prefix = 'claudemesh/v2/';

/** uint64, big-endian */
export const u64 = (v) => { const b = Buffer.alloc(8); b.writeBigUInt64BE(BigInt(v)); return b; };

const LP = (x) => { const n = Buffer.alloc(4); n.writeUInt32BE(x.length); return Buffer.concat([n, x]); };
export const T = (ds, ...fields) => Buffer.concat([Buffer.from(`${prefix}${ds}\0`), ...fields.map((f) => LP(Buffer.from(f)))]);
export const H = (ds, ...fields) => sha256(T(ds, ...fields));

/** cut takes the first LP off b: [field, rest], or null when b is too short. */
export function cut(b) {
  if (b.length < 4) return null;
  const n = b.readUInt32BE();
  return n > b.length - 4 ? null : [b.subarray(4, 4 + n), b.subarray(4 + n)];
}

/** parse takes T(ds, ..) apart, whatever its ds. */
export function parse(body, fault = 'bad_certificate') {
  const zero = body.indexOf(0);
  const head = body.subarray(0, Math.max(zero, 0)).toString('latin1');
  need(head.startsWith(prefix), fault);
  const fields = [];
  for (let rest = body.subarray(zero + 1); rest.length > 0;) {
    const got = cut(rest);
    need(got && fields.length < 10_000, fault);
    fields.push(got[0]);
    rest = got[1];
  }
  return { ds: head.slice(prefix.length), fields };
}

const order = 2n ** 255n - 19n;

/** toCurve is the X25519 key of an acceptable ed25519 key; otherwise it throws. */
export function toCurve(key) {
  const y = BigInt('0x' + hex(Buffer.from(key).reverse())) & (2n ** 255n - 1n);
  if (y >= order) throw new Error('not canonical');
  return sodium.crypto_sign_ed25519_pk_to_curve25519(key); // refuses small order and torsion
}

export const acceptable = (key) => { try { toCurve(key); return true; } catch { return false; } };
export const verify = (key, message, sig) => acceptable(key) && sodium.crypto_sign_verify_detached(sig, message, key);

/** keypair of a seed, with its X25519 secret key. */
export function keypair(seed) {
  const { publicKey, privateKey } = sodium.crypto_sign_seed_keypair(seed);
  return { public: publicKey, xSecret: sodium.crypto_sign_ed25519_sk_to_curve25519(privateKey) };
}

export const derive = (secret, info) => Buffer.from(hkdfSync('sha256', secret, '', prefix + info, 32));

/** shared is the box key of one's own seed and a peer's key. */
export const shared = (seed, peer) => sodium.crypto_box_beforenm(toCurve(peer), keypair(seed).xSecret);

const attempt = (open) => { try { return Buffer.from(open()); } catch { return refuse('bad_box'); } };
export const openBox = (ciphertext, nonce, key) => attempt(() => sodium.crypto_box_open_easy_afternm(ciphertext, nonce, key));
export const openSecret = (ciphertext, nonce, key) => attempt(() => sodium.crypto_secretbox_open_easy(ciphertext, nonce, key));
/** split is nonce then ciphertext, as boxes travel. */
export const split = (b) => [b.subarray(24), b.subarray(0, 24)];

export function padded(n) {
  if (n <= 512) return n <= 256 ? 256 : 512;
  let p = 512;
  while (p * 2 < n) p *= 2;
  return Math.ceil(n / (p / 8)) * (p / 8);
}

export const zeros = (rest, total) => padded(total - rest.length) === total && rest.every((c) => c === 0);

export const attestationBytes = (a) => a ? Buffer.concat([u64(a.issued), unhex(a.sig)]) : Buffer.alloc(0);

export function parseAttestation(b) {
  if (b.length === 0) return null;
  need(b.length === 72 && b[0] < 0x80, 'bad_attestation');
  return { issued: Number(b.readBigUInt64BE()), sig: hex(b.subarray(8)) };
}

export function checkAttestation(mesh, member, session, a) {
  const bad = 'bad_attestation';
  need(acceptable(member), bad);
  if (!a) return need(same(member, session), bad);
  need(!same(member, session) && acceptable(session), bad);
  return need(verify(member, T('session', mesh, member, session, u64(a.issued)), unhex(a.sig)), bad);
}

export function checkCard(mesh, member, session, card) {
  const t = T('card', mesh, member, session, u64(card.generation), u64(card.seq), sha256(unbase64(card.blob)));
  need(verify(session, t, unhex(card.sig)), 'bad_card');
}

export function parseMeshKey(mesh, plain) {
  const { ds, fields: f } = parse(plain, 'bad_envelope');
  need(ds === 'mesh-key' && f.length === 3 && f[0].length === 16 && f[1].length === 8 && f[2].length === 32, 'bad_envelope');
  need(same(f[0], mesh), 'wrong_mesh');
  return { generation: Number(f[1].readBigUInt64BE()), key: hex(f[2]) };
}

export function safetySide(mesh, member) {
  let h = T('safety', mesh, member);
  for (let i = 0; i < 5200; i++) h = Buffer.from(sodium.crypto_hash(Buffer.concat([h, member]))); // SHA-512
  return [0, 5, 10, 15, 20, 25].map((i) => String(h.readUIntBE(i, 5) % 100_000).padStart(5, '0')).join('');
}
