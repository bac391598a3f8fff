// The mod: messages reach an idle and a busy session whatever happens in it, each once.
import assert from 'node:assert/strict'
import path from 'node:path'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { onStage } from '../lib/stage.mjs'
import { findText } from '../lib/find.mjs'
import { meshBin } from '../lib/room.mjs'
import { sleep, until } from '../lib/util.mjs'

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
const busy = { name: 'busy', when: { tail: 'work now' }, tools: [{ name: 'Bash', input: { command: 'sleep 3' } }] }
const slow = { name: 'slow', when: { tail: 'think now' }, text: 'a slow answer '.repeat(60), chunkMs: 60 }

test('mod: an idle session gets a turn, the draft stays', onStage(async (stage, t) => {
  const { b, send } = await onMod(stage)
  await b.write('my draft')
  const began = Date.now()
  await send('IDLE-ONE <b>')
  const hit = await b.waitText('IDLE-ONE')
  t.diagnostic(`from send to the model: ${hit.t - began} ms`)
  assert.equal(hit.role, 'user')
  assert.match(hit.text, /^The claudemesh plugin sent a message:\n<peer-message from="alice"[^]*IDLE-ONE &lt;b&gt;/)
  assert.equal(b.draft(), 'my draft')
  await b.waitScreen(/claudemesh: acme · \d+ online/)
}))

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
  await sleep(1500)
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
  await sleep(1500)
  for (const text of ['NOW-ONE', 'NOW-TWO']) assert.equal(b.countText(text), 1)
}))

test('mod: what is not urgent waits for the person', onStage(async stage => {
  const { b, send } = await onMod(stage)
  await send('LOW-ONE', '--priority', 'low')
  await sleep(2000)
  assert.equal(b.model.log.length, 0)
  await b.prompt('hello there')
  const hit = await b.waitText('LOW-ONE')
  assert.equal(hit.role, 'user')
  assert.equal(hit.seq, findText(b.model.log, 'hello there')[0].seq)
  await b.prompt('and again')
  await b.waitText('and again')
  assert.equal(b.countText('LOW-ONE'), 1)
}))

/** Calls a tool of an MCP server of its own, many times at once; resolves with how many the broker has accepted: it makes a sender of too many wait. */
async function callAtOnce(room, name, all) {
  const server = spawn(path.join(meshBin, 'claudemesh'), ['mcp'], { cwd: room.project(), env: room.env(), stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise(ok => server.on('close', ok))
  let out = ''
  server.stdout.on('data', d => { out += d })
  const write = m => server.stdin.write(JSON.stringify({ jsonrpc: '2.0', ...m }) + '\n')
  write({ id: 'first', method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } } })
  write({ method: 'notifications/initialized' })
  const call = (id, tool, args) => write({ id, method: 'tools/call', params: { name: tool, arguments: args } })
  call('list', 'list_peers', {})
  await until(() => out.includes('bob/api'), { what: 'bob/api' })
  all.forEach((args, i) => call(i, name, args))
  const answers = () => out.split('\n').slice(0, -1).map(l => JSON.parse(l)).filter(m => typeof m.id === 'number')
  await until(() => answers().length === all.length, { what: 'all answers' })
  server.stdin.end()
  await ended
  return answers().filter(m => m.result?.structuredContent?.to?.[0]?.state === 'accepted').length
}

test('mod: fifty messages at once are two turns, all once or counted', onStage(async (stage, t) => {
  const names = Array.from({ length: 50 }, (_, i) => `BURST-${i}-`)
  const { alice, b } = await onMod(stage, { steps: [{ name: 'first', when: { tail: 'BURST-' }, text: 'one moment '.repeat(350), chunkMs: 60 }] }) // the broker lets a sender go on for some seconds
  const sent = await callAtOnce(alice, 'send_message', names.map(message => ({ to: 'bob/api', message })))
  t.diagnostic(`${sent} sent`)
  const requests = () => b.model.log.filter(e => e.kind === 'main')
  await until(() => requests().length > 1, { what: 'a second turn' })
  await sleep(3000)
  assert.equal(requests().length, 2)
  const counts = names.map(n => b.countText(n))
  assert.ok(counts.every(n => n <= 1))
  const rest = /(\d+) more unread; check_messages shows them/.exec(findText(b.model.log, 'more unread')[0]?.text)?.[1] ?? 0
  assert.equal(counts.filter(n => n === 1).length + Number(rest), sent)
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
  const requests = b.model.log.length
  await sleep(12_000)
  assert.equal(b.model.log.length, requests)
  await b.prompt('go on')
  const hits = [await b.waitText('go on'), await b.waitText('ESC-ONE'), await b.waitText('ESC-NOW')]
  assert.equal(new Set(hits.map(h => h.seq)).size, 1)
  await b.prompt('and again')
  await b.waitText('and again')
  for (const text of ['ESC-ONE', 'ESC-NOW']) assert.equal(b.countText(text), 1)
}))

test('mod: /clear loses nothing', onStage(async stage => {
  const { b, send } = await onMod(stage, { steps: [slow] })
  await b.prompt('hello there')
  await b.waitText('hello there')
  await send('CLEAR-ONE')
  await b.prompt('/clear')
  await send('CLEAR-TWO')
  await b.waitText('CLEAR-ONE')
  await b.waitText('CLEAR-TWO')
  await sleep(1500)
  for (const text of ['CLEAR-ONE', 'CLEAR-TWO']) assert.equal(b.countText(text), 1)
  assert.equal(b.children().filter(p => stream.test(p.args)).length, 1)
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
  b.kill(stream)
  await b.waitText('KILL-NOW')
  await send('KILL-LAST')
  await b.waitText('KILL-LAST')
  await sleep(2000)
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
