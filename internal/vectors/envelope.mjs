// Opening a push, in the order of docs/protocol.md, section 7.
import {
  H, T, checkAttestation, cut, hex, need, openBox, openSecret, parse, parseAttestation, refuse, same, shared, split, unbase64, unhex,
  verify, zeros, keypair, acceptable,
} from './protocol.mjs';

const direct = (mode) => mode === 'dm' || mode === 'receipt';
const maxLifetime = 30n * 24n * 3600n * 1000n;

/** openPush yields what a push says, or throws a Refusal. */
export function openPush({ readerSeed, mesh, push: p }) {
  const own = keypair(unhex(readerSeed)).public;
  const [plain, seq] = decrypt(p, unhex(readerSeed));
  const [header, attestation, type, body, signature, length] = takeApart(p.mode, plain);
  const h = readHeader(header);
  const vouched = parseAttestation(attestation);
  need(!same(h.session, own), 'reflected');
  need(h.mode === p.mode && hex(h.id) === p.id && h.priority === p.priority && h.expires === BigInt(p.expires) &&
    hex(h.session) === p.senderPubkey && hex(h.member) === p.senderMember, 'header_mismatch');
  need(hex(h.mesh) === mesh, 'wrong_mesh');
  need(!direct(p.mode) || same(h.recipient, own), 'wrong_recipient');
  checkAttestation(h.mesh, h.member, h.session, vouched);
  const signed = T('envelope', header, H('content', type, body));
  need(verify(h.session, signed, signature), 'bad_signature');
  need(h.sent >= 0n && h.expires > h.sent && h.expires - h.sent <= maxLifetime, 'bad_lifetime');
  need(h.hop < 8n, 'too_many_hops');
  return {
    header: hex(header), signed: hex(signed), innerLength: length, seq: Number(direct(p.mode) ? h.seq : seq), hop: Number(h.hop),
    attested: vouched !== null, contentType: type.toString(), body: body.toString('base64'),
  };
}

function decrypt(p, seed) {
  const sender = unhex(p.senderPubkey);
  const nonce = unbase64(p.nonce);
  const ciphertext = unbase64(p.ciphertext);
  need(acceptable(sender) && nonce.length === 24, 'bad_box');
  const key = shared(seed, sender);
  if (direct(p.mode)) return [openBox(ciphertext, nonce, key), 0n];
  const wrap = openBox(...split(unbase64(p.wrap)), key);
  need(wrap.length === 73 && wrap[0] === 1, 'bad_box');
  need(same(H('body', unhex(p.id), nonce, ciphertext), wrap.subarray(33, 65)), 'body_hash');
  return [openSecret(ciphertext, nonce, wrap.subarray(1, 33)), wrap.readBigUInt64BE(65)];
}

function takeApart(mode, plain) {
  need(plain.length > 0 && plain[0] === (direct(mode) ? 0 : 2), 'bad_envelope');
  const fields = [];
  let rest = plain.subarray(1);
  for (let i = 0; i < 5; i++) {
    const got = cut(rest) ?? refuse('bad_envelope');
    fields.push(got[0]);
    rest = got[1];
  }
  need(zeros(rest, plain.length), 'bad_padding');
  need(fields[3].length <= 32768 && fields[4].length === 64, 'bad_envelope');
  return [...fields, plain.length - rest.length];
}

const lengths = [null, 16, 32, 32, [0, 32], null, 16, 8, 8, null, 8, [0, 16], [0, 16], 8];

function readHeader(b) {
  const { ds, fields: f } = parse(b, 'bad_envelope');
  let ok = ds === 'header' && (f.length === 14 || (f.length === 15 && f[14].length === 8));
  ok &&= lengths.every((want, i) => want === null || [want].flat().includes(f[i].length));
  // What is absent is empty, and not zeros: a header has one encoding.
  ok &&= [4, 11, 12].every((i) => f[i].length === 0 || f[i].some((c) => c !== 0));
  const mode = ok && f[0].toString();
  ok &&= ['dm', 'group', 'broadcast', 'receipt'].includes(mode) && ['now', 'next', 'low'].includes(f[9].toString());
  ok &&= direct(mode) === (f[4].length > 0);
  const hop = ok && f.length === 15 ? f[14].readBigUInt64BE() : 0n;
  need(ok && (f.length === 14 || hop > 0n), 'bad_envelope');
  return {
    mode, mesh: f[1], member: f[2], session: f[3], recipient: f[4], id: f[6], sent: f[7].readBigInt64BE(), expires: f[8].readBigInt64BE(),
    priority: f[9].toString(), seq: f[10].readBigUInt64BE(), hop,
  };
}
