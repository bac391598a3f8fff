// How long a message takes from its sender to the model's request, beside Claude Code's own way between sessions of
// one machine. RUNS=50 for figures: the default shows that all arrive.
import assert from 'node:assert/strict'
import os from 'node:os'
import { test } from 'node:test'
import { interleave, table } from '../lib/latency.mjs'
import { Peer } from '../lib/peer.mjs'
import { onStage } from '../lib/stage.mjs'
import { postToSession, until } from '../lib/util.mjs'

const runs = Number(process.env.RUNS ?? 3)
const sendTool = 'mcp__plugin_claudemesh_claudemesh__send_message'
const settings = { permissions: { allow: ['Bash', 'SendMessage', sendTool] } }
const managed = { pluginConfigs: { 'cc-plugin-sec-default@builtin': { options: { allowManagedModsOnly: true } } } }

// While it is at work the model calls one short tool after the other, until the measured text is there.
const short = { name: 'Bash', input: { command: 'sleep 0.2; echo still busy', description: 'work' } }
const work = { name: 'work', times: Infinity, when: { tail: 'keep busy|still busy', notTail: 'measured:' }, tools: [short] }

/** Waits until a session idles, by its own word and by what the peer is told, who also knows the path. */
const idle = (peer, session, name, wake) => async () => {
  await until(async () => (await session.registered()).status === 'idle', { what: () => `an idle session\n${session.describe()}` })
  let peers
  const listed = async () => {
    ({ peers } = await peer.call('list_peers'))
    return peers.some(p => p.name === name && p.status === 'idle' && p.wake === wake)
  }
  await until(listed, { everyMs: 50, what: () => `${name} idle by ${wake}: ${JSON.stringify(peers)}\n${session.describe()}` })
}

/** Has an idle session begin to work. */
const busy = (session, ready) => async () => {
  await ready()
  const { length } = session.model.log
  await session.prompt('keep busy')
  await until(() => session.model.log.slice(length).some(e => e.step === 'work'), { what: () => `work\n${session.describe()}` })
}

const byPeer = (peer, to, priority) => async text => assert.equal((await peer.send(to, text, { priority })).to[0].state, 'accepted')

/** By a tool that the session's model calls. The moment is that of the request which is answered, at once, with the call. */
const bySession = (session, name, input) => async text => {
  session.model.add({ name: text, when: { tail: 'say it' }, tools: [{ name, input: input(text) }] })
  await session.prompt('say it')
  const { seq, t } = await session.waitStep(text)
  const result = () => session.model.log.find(e => e.kind === 'main' && e.seq > seq)
  const { tail } = await until(result, { everyMs: 2, what: () => `a result\n${session.describe()}` })
  assert.match(tail, /"success":true|"state":"(accepted|delivered|read)"/)
  return t
}

test('latency beside Claude Code\'s own messages', { timeout: 900_000 }, onStage(async stage => {
  const alice = await stage.member('alice')
  const bob = await stage.member('bob', { projects: ['mod', 'web'], settings })
  const carol = await stage.member('carol', { projects: ['rewake'], managed })
  await Promise.all([bob.installPlugin(), carol.installPlugin()])
  const [mod, web, rewake] = await Promise.all([
    stage.tui(bob, { project: 'mod', steps: [work] }), stage.headless(bob, { project: 'web' }), stage.tui(carol)])
  const peer = await new Peer(alice).open()
  try {
    const { messagingSocketPath, name } = await mod.registered()
    const [to, other] = ['bob/mod', 'carol/rewake']
    const ready = idle(peer, mod, to, 'mod')
    const working = busy(mod, ready)
    const own = async text => { await postToSession(messagingSocketPath, text) }
    const ways = [
      { name: 'own, idle', session: mod, ready, send: own },
      { name: 'mod, idle, next', session: mod, ready, send: byPeer(peer, to, 'next'), beside: 'own, idle' },
      { name: 'mod, idle, now', session: mod, ready, send: byPeer(peer, to, 'now'), beside: 'own, idle' },
      { name: 'rewake, idle, next', session: rewake, ready: idle(peer, rewake, other, 'rewake'), send: byPeer(peer, other, 'next'), beside: 'own, idle' },
      { name: 'own, busy', session: mod, ready: working, send: own },
      { name: 'mod, busy, now', session: mod, ready: working, send: byPeer(peer, to, 'now'), beside: 'own, busy' },
      { name: 'own, by a tool', session: mod, ready, send: bySession(web, 'SendMessage', message => ({ to: name, message, summary: 'news' })) },
      ...['next', 'now'].map(priority => ({
        name: `mod, by a tool, ${priority}`, session: mod, ready, beside: 'own, by a tool',
        send: bySession(web, sendTool, message => ({ to, message, priority })),
      })),
    ]
    await interleave(ways, runs)
    console.log(`\nMilliseconds from the call, and from its acceptance, to the model's request; load ${os.loadavg()[0].toFixed(1)}\n\n${table(ways)}\n`)
    for (const way of ways) assert.equal(way.called.length, runs)
  } finally {
    await peer.close()
  }
}))
