// How long a message takes from its sender to the model's request, beside Claude Code's own way between sessions of
// one machine. RUNS=50 for figures: the default shows that all arrive.
import assert from 'node:assert/strict'
import os from 'node:os'
import { test } from 'node:test'
import { interleave, table } from '../lib/latency.mjs'
import { Peer } from '../lib/peer.mjs'
import { onStage } from '../lib/stage.mjs'
import { postToSession, until } from '../lib/util.mjs'

const runs = Number(process.env.RUNS ?? 5)
const sendTool = 'mcp__plugin_claudemesh_claudemesh__send_message'
const settings = { permissions: { allow: ['Bash', 'SendMessage', sendTool] } }
const managed = { pluginConfigs: { 'cc-plugin-sec-default@builtin': { options: { allowManagedModsOnly: true } } } }
// While it is at work the model calls one short tool after the other, until the measured text is there.
const work = { name: 'work', times: Infinity, when: { tail: 'keep busy|still busy', notTail: 'measured:' }, tools: [{ name: 'Bash', input: { command: 'sleep 0.2; echo still busy', description: 'work' } }] }

test('latency beside the inbox socket', { timeout: 900_000 }, onStage(async (stage, t) => {
  const alice = await stage.member('alice')
  const bob = await stage.member('bob', { projects: ['mod', 'web'], settings })
  const carol = await stage.member('carol', { projects: ['rewake'], managed })
  await Promise.all([bob.installPlugin(), carol.installPlugin()])
  const [mod, rewake, web] = await Promise.all([stage.tui(bob, { steps: [work] }), stage.tui(carol), stage.headless(bob, { project: 'web' })])
  const { messagingSocketPath, name: ownName } = await mod.registered()
  const sender = await new Peer(alice).open()
  try {
    /** Waits until a session idles, by its own word and by its card, which names the path. */
    const idle = (session, name, wake) => async () => {
      await until(async () => (await session.registered()).status === 'idle', { what: () => `an idle session\n${session.describe()}` })
      let peers
      const listed = async () => {
        peers = (await sender.call('list_peers')).peers
        return peers.some(p => p.name === name && p.status === 'idle' && p.wake === wake)
      }
      await until(listed, { everyMs: 50, what: () => `${name} idle by ${wake}: ${JSON.stringify(peers)}\n${session.describe()}` })
    }
    const ready = idle(mod, 'bob/mod', 'mod')
    const busy = async () => {
      await ready()
      const { length } = mod.model.log
      await mod.prompt('keep busy')
      await until(() => mod.model.log.slice(length).some(e => e.step === 'work'), { what: () => `work\n${mod.describe()}` })
    }
    const own = async text => { await postToSession(messagingSocketPath, text) }
    const mesh = (to, priority) => async text => assert.equal((await sender.send(to, text, { priority })).to[0].state, 'accepted')
    /** The model of the session web calls a tool. The call's moment is that of its request, which is answered at once. */
    const bySession = (name, input) => async text => {
      const call = { name: text, when: { tail: 'say it' }, tools: [{ name, input: input(text) }] }
      web.model.add(call)
      await web.prompt('say it')
      const { seq, t } = await web.waitStep(text)
      const done = await until(() => web.model.log.find(e => e.kind === 'main' && e.seq > seq), { everyMs: 2, what: () => `a result\n${web.describe()}` })
      assert.match(done.tail, /"success":true|"state":"accepted"/)
      return t
    }
    const ways = [
      { name: 'own, idle', session: mod, ready, send: own },
      { name: 'mod, idle, next', session: mod, ready, send: mesh('bob/mod', 'next'), beside: 'own, idle' },
      { name: 'mod, idle, now', session: mod, ready, send: mesh('bob/mod', 'now'), beside: 'own, idle' },
      { name: 'rewake, idle, next', session: rewake, ready: idle(rewake, 'carol/rewake', 'rewake'), send: mesh('carol/rewake', 'next'), beside: 'own, idle' },
      { name: 'own, busy', session: mod, ready: busy, send: own },
      { name: 'mod, busy, now', session: mod, ready: busy, send: mesh('bob/mod', 'now'), beside: 'own, busy' },
      { name: 'own, between sessions', session: mod, ready, send: bySession('SendMessage', message => ({ to: ownName, message, summary: 'news' })) },
      { name: 'mod, between sessions, next', session: mod, ready, send: bySession(sendTool, message => ({ to: 'bob/mod', message })), beside: 'own, between sessions' },
      { name: 'mod, between sessions, now', session: mod, ready, send: bySession(sendTool, message => ({ to: 'bob/mod', message, priority: 'now' })), beside: 'own, between sessions' },
    ]
    await interleave(ways, runs)
    console.log(`\nMilliseconds from the call, and from its acceptance, to the model's request; load ${os.loadavg()[0].toFixed(1)}\n\n${table(ways)}\n`)
    for (const way of ways) assert.equal(way.called.length, runs)
  } finally {
    await sender.close()
  }
}))
