// What the client does that our design rests on. When one of these fails, a newer client has changed it.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { onStage } from '../lib/stage.mjs'
import { until } from '../lib/util.mjs'

const settings = { permissions: { allow: ['mcp__claudemesh__list_peers'] } }
const list = n => ({ name: `list ${n}`, when: { tail: `list ${n}` }, tools: [{ name: 'mcp__claudemesh__list_peers', input: {} }] })
/** The tool result that the step's call got. */
async function resultOf(session, step) {
  const call = await session.waitStep(step)
  const next = await until(() => session.model.log.find(e => e.kind === 'main' && e.seq > call.seq), { what: () => `a result of ${step}\n${session.describe()}` })
  return next.tail
}

test('headless, a killed MCP server is started again by the next call', onStage(async stage => {
  const alice = await stage.member('alice', { settings })
  await alice.addServer()
  const a = await stage.headless(alice, { steps: [list(1)] })
  await a.waitServer()
  const killed = a.kill(/claudemesh mcp/)
  await until(() => !a.children().some(p => p.pid === killed[0].pid))
  await a.prompt('list 1')
  assert.match(await resultOf(a, 'list 1'), /"ok":true|peers/)
  await a.waitServer('claudemesh', { times: 2 })
}))

test('interactive, a killed MCP server stays away until it is reconnected', onStage(async stage => {
  const alice = await stage.member('alice', { settings })
  await alice.addServer()
  const a = await stage.tui(alice, { steps: [list(1), list(2)] })
  await a.waitServer()
  a.kill(/claudemesh mcp/)
  await until(() => !a.children().some(p => /claudemesh mcp/.test(p.args)))
  await a.prompt('list 1')
  assert.match(await resultOf(a, 'list 1'), /No such tool available/)
  await a.prompt('/mcp reconnect claudemesh')
  await a.waitServer('claudemesh', { times: 2 })
  await a.prompt('list 2')
  assert.doesNotMatch(await resultOf(a, 'list 2'), /No such tool available/)
}))

/** A plugin whose settings hook and whose mod each leave a file behind. */
function tracePlugin(room) {
  const dir = path.join(room.dir, 'trace')
  fs.mkdirSync(path.join(dir, '.claude-plugin'), { recursive: true })
  fs.mkdirSync(path.join(dir, 'hooks'))
  room.write(path.join(dir, '.claude-plugin', 'plugin.json'), { name: 'trace', version: '1.0.0', description: 'Leaves traces.' })
  room.write(path.join(dir, 'hooks', 'hooks.json'), {
    modules: ['./register.js'],
    hooks: { Stop: [{ hooks: [{ type: 'command', command: 'touch "$HOME/hook-ran"' }] }] },
  })
  fs.writeFileSync(path.join(dir, 'hooks', 'register.js'), `export const register = on => {
    on('session.start', async ($, e, next) => { await $.process.run(['sh', '-c', 'touch "$HOME/mod-ran"']); return next(e) })
  }`)
  return dir
}
const traces = room => ['hook-ran', 'mod-ran'].filter(f => fs.existsSync(path.join(room.home, f)))
const modsOff = { pluginConfigs: { 'cc-plugin-sec-default@builtin': { options: { allowManagedModsOnly: true } } } }

for (const [what, options, want] of [
  ['nothing off', {}, ['hook-ran', 'mod-ran']],
  ['mods off by managed settings', { managed: modsOff }, ['hook-ran']],
  ['all hooks off', { settings: { disableAllHooks: true } }, []],
]) {
  test(`plugin parts that run with ${what}`, onStage(async stage => {
    const alice = await stage.member('alice', options)
    const a = await stage.headless(alice, { args: ['--plugin-dir', tracePlugin(alice)] })
    await a.prompt('hello')
    await a.waitText('hello')
    assert.equal(await a.finish(), 0)
    assert.deepEqual(traces(alice), want)
  }))
}
