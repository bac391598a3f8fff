// The mod: what the model and the person see of a message besides its text, and Claude's own words to peers.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { onStage } from '../lib/stage.mjs'
import { until } from '../lib/util.mjs'

const settings = { permissions: { allow: ['Bash', 'mcp__plugin_claudemesh_claudemesh__check_messages'] } }
const stream = /session-stream$/

/** Bob's session with the plugin, ready to be written to by alice, who is at a terminal. */
async function onMod(stage, options = {}, open = 'tui') {
  const alice = await stage.member('alice')
  const bob = await stage.member('bob', { projects: ['api'], settings })
  await bob.installPlugin()
  const b = await stage[open](bob, options)
  await b.waitChild(stream)
  await bound(alice)
  return { alice, bob, b, send: (text, ...flags) => alice.mesh(['send', ...flags, '--', 'bob/api', text]) }
}

/** Waits until others can see that the mod wakes bob. */
const bound = (room, name = 'bob/api', wake = 'mod') => until(async () => (await room.meshJson(['peers'])).some(p => p.name === name && (!wake || p.wake === wake)), { what: `${name} to be there` })

/** Another turn, whose request carries all that came before. */
async function another(b) {
  await b.prompt('and again')
  await b.waitText('and again')
}
const busy = { name: 'busy', when: { tail: 'work now' }, tools: [{ name: 'Bash', input: { command: 'sleep 3' } }] }
const slow = { name: 'slow', when: { tail: 'think now' }, text: 'a slow answer '.repeat(60), chunkMs: 60 }

test('mod: a busy session hears of it, and gets it when its turn ends', onStage(async stage => {
  const { b, send } = await onMod(stage, { steps: [busy] })
  await b.prompt('work now')
  await b.waitStep('busy')
  await send('BUSY-ONE')
  const bell = await b.waitText('1 unread peer message: 1 from alice')
  assert.match(bell.text, /^tool\.call hook additional context: \[claudemesh:/)
  const hit = await b.waitText('BUSY-ONE')
  assert.ok(hit.seq > bell.seq)
  assert.match(hit.text, /^The claudemesh plugin sent a message:/)
  await another(b)
  assert.equal(b.countText('BUSY-ONE'), 1)
  assert.equal(b.countText('unread peer message'), 1)
}))

test('mod: what is urgent enters a running turn', onStage(async stage => {
  const { b, send } = await onMod(stage, { steps: [busy, slow] })
  await b.prompt('work now')
  await b.waitStep('busy')
  await send('NOW-ONE', '--priority', 'now')
  const hit = await b.waitText('NOW-ONE')
  assert.match(hit.text, /^Note from the claudemesh plugin, not from the user:\n<peer-message/)
  assert.equal(hit.seq, b.model.log.find(e => e.step === 'busy').seq + 1)
  await b.waitScreen(/1 peer message put before Claude: 1 from alice \(urgent\)/)
  // While the last answer streams nothing can enter: the next turn has it.
  await b.prompt('think now')
  await b.waitStep('slow')
  await send('NOW-TWO', '--priority', 'now')
  assert.match((await b.waitText('NOW-TWO')).text, /^The claudemesh plugin sent a message:/)
  await another(b)
  for (const text of ['NOW-ONE', 'NOW-TWO']) assert.equal(b.countText(text), 1)
}))

// The client begins no turn for anybody after Esc until the person has said something.
test('mod: after Esc it waits for the person, and nothing is lost', onStage(async stage => {
  const { b, send } = await onMod(stage, { steps: [slow] })
  await b.prompt('think now')
  await b.waitStep('slow')
  await send('ESC-ONE')
  await send('ESC-NOW', '--priority', 'now')
  b.keys('Escape')
  await b.waitScreen(/Interrupted/)
  await b.prompt('go on')
  const hits = [await b.waitText('go on'), await b.waitText('ESC-ONE'), await b.waitText('ESC-NOW')]
  assert.equal(new Set(hits.map(h => h.seq)).size, 1)
  await another(b)
  for (const text of ['ESC-ONE', 'ESC-NOW']) assert.equal(b.countText(text), 1)
}))

test('mod: a stream that is killed is begun again, and all arrive once', onStage(async stage => {
  const { b, send } = await onMod(stage, { steps: [busy] })
  await send('KILL-ONE')
  await b.waitText('KILL-ONE')
  b.kill(stream)
  await send('KILL-TWO')
  await b.waitText('KILL-TWO')
  await b.prompt('work now')
  await b.waitStep('busy')
  await send('KILL-NOW', '--priority', 'now')
  await b.waitChild(stream)
  b.kill(stream)
  await b.waitText('KILL-NOW')
  await send('KILL-LAST')
  await b.waitText('KILL-LAST')
  await another(b)
  for (const text of ['KILL-ONE', 'KILL-TWO', 'KILL-NOW', 'KILL-LAST']) assert.equal(b.countText(text), 1)
}))

test("mod: Claude's own words reach peers of the mesh", onStage(async stage => {
  const { alice, b } = await onMod(stage, {
    steps: [
      { name: 'list', when: { tail: 'who is there' }, tools: [{ name: 'ListAgents', input: {} }] },
      { name: 'tell', when: { tail: 'tell alice' }, tools: [{ name: 'SendMessage', input: { to: 'alice', message: 'OWN-WORDS', summary: 'news' } }] },
      { name: 'nobody', when: { tail: 'tell nobody' }, tools: [{ name: 'SendMessage', input: { to: 'nobody', message: 'OWN-NOBODY', summary: 'news' } }] },
    ],
  })
  await b.prompt('who is there')
  const listed = await b.waitText('Peers on the mesh')
  assert.equal(listed.type, 'tool_result')
  assert.match(listed.text, /- alice: no session now, a message waits/)
  await b.prompt('tell alice')
  await b.waitText('Delivered by a plugin hook')
  await b.waitText('claudemesh: accepted; alice is not there now')
  await b.prompt('tell nobody')
  await b.waitText("No agent named 'nobody' is reachable")
  assert.deepEqual((await alice.inbox()).map(m => [m.from.name, m.text]), [['bob/api', 'OWN-WORDS']])
}))
