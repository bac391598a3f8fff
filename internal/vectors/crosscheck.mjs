// Holds the published vectors against libsodium, from the JSON alone.
// usage: node crosscheck.mjs [DIRECTORY of the JSON files]
//
// Every valid case is verified whole, every case that fails by cryptography
// must fail here by the same class. What is refused for another reason (who
// may sign what, the strictness of JSON) is counted as not looked into; of its
// statements the signatures are checked all the same.
import { readFileSync, readdirSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { openPush } from './envelope.mjs';
import {
  H, Refusal, T, acceptable, attestationBytes, checkAttestation, checkCard, cut, derive, hex, keypair, need, openBox, openSecret, padded, parse,
  parseAttestation, parseMeshKey, refuse, safetySide, same, sha256, shared, sodium, split, toCurve, u64, unbase64, unhex, verify, zeros,
} from './protocol.mjs';

const dir = process.argv[2] ?? new URL('testdata', import.meta.url).pathname;
const read = (name) => JSON.parse(readFileSync(`${dir}/${name}`, 'utf8'));
const mesh = read('mesh.json');
const owner = unhex(mesh.public.owner);

const id = (ds, key) => hex(H(ds, key).subarray(0, 16));

/** signer of a statement: from itself, from the mesh, or from the statement before it. */
const signers = {
  genesis: (f) => f[1], member: () => owner, invite: (f) => f[7], join: (_, before) => before?.[2], 'join-pop': (_, before) => before?.[1],
  'invite-close': (f) => f[2], revoke: (f) => f[2], role: () => owner, pause: (f) => f[1], resume: (f) => f[1],
};

/** statements verifies each signature, and that what names another by its hash names it. */
function statements(list) {
  let before;
  list.forEach(({ body, sig }, i) => {
    const b = unbase64(body);
    const { ds, fields: f } = parse(b);
    const key = signers[ds]?.(f, before) ?? refuse('bad_certificate');
    need(key.length === 32 && verify(key, b, unhex(sig)), 'bad_signature');
    need(same(T(ds, ...f), b), 'bad_certificate');
    if (ds === 'invite') need(id('invite-id', f[2]) === hex(f[1]), 'bad_certificate') && need(acceptable(f[2]), 'bad_signature');
    if (ds === 'join' || ds === 'join-pop') need(same(sha256(unbase64(list[i - 1].body)), f[0]), 'bad_certificate');
    if (ds !== 'join' && ds !== 'join-pop') need(hex(f[0]) === mesh.meshId, 'bad_certificate');
    before = f;
  });
}

const statement = ({ statements: list }) => statements(list);
const told = ({ events }) => events.forEach((e) => statements(e.statements));
const json = (v) => JSON.parse(JSON.stringify(v)); // drops what is undefined

/** What each kind yields; a Refusal names the class by which it fails. */
const kinds = {
  T: ({ ds, fields }) => ({ t: hex(T(ds, ...fields.map(unhex))), h: hex(H(ds, ...fields.map(unhex))) }),
  fields({ ds, body }) {
    const got = parse(unhex(body));
    need(got.ds === ds, 'bad_certificate');
    return { ds, fields: got.fields.map(hex) };
  },
  padding: ({ length }) => ({ padded: padded(length) }),
  mesh_id: ({ key }) => ({ id: id('mesh-id', unhex(key)) }),
  invite_id: ({ key }) => ({ id: id('invite-id', unhex(key)) }),
  invite_keys({ secret }) {
    const seed = derive(unhex(secret), 'invite-key');
    const key = keypair(seed).public;
    return { seed: hex(seed), key: hex(key), id: id('invite-id', key), blobKey: hex(derive(unhex(secret), 'invite-mesh-key')) };
  },
  key_hash: (c) => ({ hash: hex(H('mesh-key', unhex(c.mesh), u64(c.generation), unhex(c.key))) }),
  previous_key: ({ key }) => ({ key: hex(derive(unhex(key), 'prev')) }),

  keypair({ seed }) {
    const k = keypair(unhex(seed));
    return { public: hex(k.public), x25519Public: hex(sodium.crypto_scalarmult_base(k.xSecret)), x25519Secret: hex(k.xSecret) };
  },
  key: ({ key }) => need(acceptable(unhex(key)), 'bad_key') && { x25519Public: hex(toCurve(unhex(key))) },
  signature: (c) => { need(verify(unhex(c.public), unhex(c.message), unhex(c.sig)), 'bad_signature'); },
  box(c) {
    const k = shared(unhex(c.recipientSeed), unhex(c.sender));
    return { shared: hex(k), plaintext: hex(openBox(unhex(c.ciphertext), unhex(c.nonce), k)) };
  },
  secretbox: (c) => ({ plaintext: hex(openSecret(unhex(c.ciphertext), unhex(c.nonce), unhex(c.key))) }),

  genesis: statement, certificate: statement, capability: statement, close: statement, removal: statement, role: statement, pause: statement,
  roster: told, standing: told,

  link({ link }) {
    const payload = link.trim().replace(/^ic:\/\/join\/|^https?:\/\/[^/]+\/i\/[0-9a-f]{32}#/, '');
    const l = JSON.parse(Buffer.from(payload, 'base64url'));
    need(l.v === 2 && acceptable(unhex(l.owner)) && acceptable(unhex(l.brokerKey)), 'link_key');
    return { broker: l.broker, brokerKey: l.brokerKey, owner: l.owner, secret: hex(unbase64(l.secret)) };
  },
  challenge({ pinned, frame }) {
    const ok = frame.brokerPubkey === pinned && verify(unhex(pinned), T('challenge', unhex(frame.nonce)), unhex(frame.sig));
    need(ok, 'wrong_broker');
  },
  hello: ({ broker, frame: h }) => hello(unhex(broker), h),
  attestation: (c) => { checkAttestation(unhex(c.mesh), unhex(c.member), unhex(c.session), c.attestation); },
  attestation_bytes({ bytes }) {
    const attestation = parseAttestation(unhex(bytes));
    need(same(attestationBytes(attestation), unhex(bytes)), 'bad_attestation');
    return { attestation };
  },
  card: (c) => checkCard(unhex(c.mesh), unhex(c.member), unhex(c.session), c.card),
  joined: (c) => { need(verify(unhex(c.broker), T('joined', sha256(c.request), unbase64(c.blob)), unhex(c.sig)), 'wrong_broker'); },

  push: openPush,
  mesh_key: (c) => parseMeshKey(unhex(c.mesh), openSecret(...split(unbase64(c.blob)), unhex(c.under))),
  mesh_key_box(c) {
    need(acceptable(unhex(c.issuer)), 'bad_box');
    return parseMeshKey(unhex(c.mesh), openBox(...split(unbase64(c.box)), shared(unhex(c.readerSeed), unhex(c.issuer))));
  },
  card_blob({ key, blob }) {
    const plain = openSecret(...split(unbase64(blob)), unhex(key));
    const [content, rest] = cut(plain) ?? refuse('bad_padding');
    need(zeros(rest, plain.length), 'bad_padding');
    return { card: JSON.parse(content) };
  },
  safety: (c) => ({ safetyNumber: c.keys.map((k) => safetySide(unhex(c.mesh), unhex(k))).sort().join('') }),
  frame: ({ text }) => { const f = JSON.parse(text); return { type: f.type, reqId: f._reqId }; },
  message: ({ text }) => ({ frames: [JSON.parse(text)].flat().length }),
};

function hello(broker, h) {
  const [member, session] = [unhex(h.pubkey), unhex(h.sessionPubkey)];
  need(['session', 'person', 'observer'].includes(h.role) && (h.role === 'session') !== same(member, session), 'bad_frame');
  need(acceptable(member), 'bad_signature');
  checkAttestation(unhex(h.meshId), member, session, h.attestation);
  const t = T('hello', u64(h.protocolVersion), h.role, unhex(h.meshId), member, session, unhex(h.nonce), broker,
    sha256(attestationBytes(h.attestation)));
  need(verify(session, t, unhex(h.sig)), 'bad_signature');
  if (h.card) checkCard(unhex(h.meshId), member, session, h.card);
  need(h.card || h.role !== 'session', 'bad_card');
}

/** Kinds whose refusals are of rules or of strictness, not of cryptography, unless they are bad_signature. */
const ruled = new Set(['genesis', 'certificate', 'capability', 'close', 'removal', 'role', 'pause', 'roster', 'standing', 'link', 'frame', 'message']);
/** Kinds of which the JSON says more than bytes can show: who stands. Their class is a rule's, or one that a statement shows. */
const judged = new Set(['roster', 'standing']);

function check(c) {
  let out;
  let got = '';
  try {
    out = kinds[c.kind](c.in);
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    got = e.message;
  }
  const want = judged.has(c.kind) && got === '' ? '' : c.class ?? '';
  if (got !== want) throw new Error(`fails with "${got}", want "${want}"`);
  if (want === '' && c.out && !judged.has(c.kind) && !isDeepStrictEqual(json(out), c.out)) throw new Error(`yields ${JSON.stringify(out)}`);
}

let [checked, left, failed] = [0, 0, 0];
for (const file of readdirSync(dir).filter((f) => f.endsWith('.json') && f !== 'mesh.json').sort()) {
  for (const c of read(file).cases) {
    if (c.class && ruled.has(c.kind) && !judged.has(c.kind) && c.class !== 'bad_signature') {
      left++;
      continue;
    }
    checked++;
    try {
      check(c);
    } catch (e) {
      failed++;
      console.log(`FAIL ${file} ${c.name}: ${e.message}`);
    }
  }
}
console.log(`libsodium ${sodium.SODIUM_VERSION_STRING}: ${checked} cases checked, ${failed} failed; ${left} not looked into`);
process.exit(failed > 0 || checked === 0 ? 1 : 0);
