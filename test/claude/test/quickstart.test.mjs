// What the README promises a person on one machine: up, two sessions that talk, launch, and a doctor that proves it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { onStage } from '../lib/stage.mjs'
import { until } from '../lib/util.mjs'

const send = 'mcp__plugin_claudemesh_claudemesh__send_message'
const settings = { permissions: { allow: [send] } }
const tell = { name: 'tell', when: { tail: 'tell api' }, tools: [{ name: send, input: { to: 'api', message: 'the schema changed' } }] }

test('quickstart: from claudemesh up alone to two sessions that talk', onStage(async stage => {
  const me = stage.room('me', { projects: ['web', 'api'], settings })
  const { stdout } = await me.run(['script', '-qec', 'claudemesh up', '/dev/null'], { input: 'y\n' }) // on a terminal: it offers to install
  assert.match(stdout, /founded local/)
  assert.match(stdout, /next: start claude in two projects/)
  const [web, api] = await Promise.all([stage.tui(me, { project: 'web', steps: [tell] }), stage.tui(me, { project: 'api' })])
  const [from] = await Promise.all(['web', 'api'].map(label => me.waitPeer(label)))
  await web.prompt('tell api')
  const got = await api.waitText('the schema changed')
  assert.match(got.text, new RegExp(`<peer-message from="${from}" mesh="local"`))
  await api.prompt('go on')
  await api.waitText('go on')
  assert.equal(api.countText('the schema changed'), 1)
}))

test('quickstart: launch alone brings up all that is missing, and the session is what its flags say', onStage(async stage => {
  const me = stage.room('me', { projects: ['web'] })
  const via = ['claudemesh', 'launch', '-y', '--name', 'checkout', '--groups', 'backend:lead', '--mode', 'notice', '--']
  const a = await stage.tui(me, { via, args: ['--model', 'claude-sonnet-4-5'] })
  const mode = () => me.meshJson(['mode', '--session', 'checkout']).catch(() => undefined)
  const said = await until(async () => { const m = await mode(); return m?.names.length && m }, { what: () => `its record\n${a.describe()}` })
  assert.equal(said.pid, a.pid)
  assert.equal(said.mode, 'notice')
  assert.match(said.names[0], /\/checkout$/)
  const peer = await until(async () => (await me.meshJson(['peers'])).find(p => p.name === said.names[0]), { what: 'it among the peers' })
  assert.deepEqual(peer.groups, [{ name: 'backend', role: 'lead' }])
  await a.prompt('hello there') // what stands behind -- is claude's
  const { seq } = await a.waitText('hello there')
  assert.match(a.model.log.find(e => e.seq === seq).model, /^claude-sonnet-4-5/)
}))

test('quickstart: doctor finds nothing wrong, and proves that messages reach a session', onStage(async stage => {
  const alice = await stage.member('alice', { projects: ['web', 'api'] })
  await alice.installPlugin()
  const [web] = await Promise.all(['web', 'api'].map(project => stage.tui(alice, { project })))
  await Promise.all(['web', 'api'].map(label => alice.waitPeer(label)))
  const nags = (await alice.meshJson(['doctor'])).findings.filter(f => f.verdict !== 'ok')
  assert.deepEqual(nags.map(f => f.check), ['backup'])
  await alice.mesh(['backup', 'acme.backup', '--low-memory', '--passphrase-stdin'], { input: 'one two three four' })
  const { findings } = await alice.meshJson(['doctor'])
  assert.deepEqual(findings.filter(f => f.verdict !== 'ok'), [])
  assert.equal(findings.filter(f => f.check === 'session' && /wake it through the plugin/.test(f.text)).length, 2)
  const { stdout } = await alice.mesh(['doctor', '--prove', '--session', 'web'])
  assert.match(stdout, /^ok +prove +sent, received after \d+ ms, shown after \d+ ms, by mod$/m)
  assert.equal(web.countText('claudemesh doctor asks'), 1)
  const several = await alice.mesh(['doctor', '--prove'], { fails: true, project: 'web' }) // this directory's
  assert.match(several.stdout, /by mod$/m)
}))
