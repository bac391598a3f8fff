// Every path by which a message enters a session, in every situation that a session can be in.
import assert from 'node:assert/strict'
import { after } from 'node:test'
import { onStage } from '../lib/stage.mjs'
import { Table } from '../lib/table.mjs'
import { until } from '../lib/util.mjs'

const table = new Table('Paths into a session, by what the session was doing',
  ['tools'],
  ['asked'])
after(() => console.log(`\n${table}\n`))

const allowed = { permissions: { allow: ['mcp__claudemesh__send_message', 'mcp__claudemesh__check_messages'] } }

table.cell('tools', 'asked', onStage(async stage => {
  const alice = await stage.member('alice', { settings: allowed })
  const bob = await stage.member('bob', { projects: ['api'], settings: allowed })
  await Promise.all([alice.addServer(), bob.addServer()])
  const [a, b] = await Promise.all([
    stage.tui(alice, { steps: [{ name: 'send', when: { tail: 'tell bob' }, tools: [{ name: 'mcp__claudemesh__send_message', input: { to: 'bob/api', message: 'the schema changed' } }] }] }),
    stage.headless(bob, { steps: [{ name: 'check', when: { tail: 'any news' }, tools: [{ name: 'mcp__claudemesh__check_messages', input: {} }] }] }),
  ])
  await Promise.all([a.waitServer(), b.waitServer()])
  await a.prompt('tell bob')
  const sent = await a.waitText('"target":"bob/api"')
  assert.equal(sent.type, 'tool_result')
  await until(async () => (await bob.inbox()).length, { what: 'the message on bob\'s disk' })

  await b.prompt('any news')
  const read = await b.waitText('the schema changed')
  assert.equal(read.type, 'tool_result')
  assert.match(read.text, /alice\/web/)
  assert.equal(b.countText('the schema changed'), 1)
}))
