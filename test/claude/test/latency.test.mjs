// How long a message takes from its sender to the model's request, beside Claude Code's own way between two sessions.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { measure } from '../lib/latency.mjs'
import { onStage } from '../lib/stage.mjs'
import { postToSession, until } from '../lib/util.mjs'

const runs = Number(process.env.RUNS ?? 10)

test('the inbox socket, idle', onStage(async (stage, t) => {
  const alice = await stage.member('alice')
  const a = await stage.tui(alice)
  const { messagingSocketPath } = await a.registered()
  const idle = () => until(async () => (await a.registered()).status === 'idle', { what: () => `an idle session\n${a.describe()}` })
  const got = await measure(a, runs, text => postToSession(messagingSocketPath, text), idle)
  t.diagnostic(`inbox socket, idle: ${JSON.stringify(got)}`)
  assert.equal(a.countText('measured 1 of'), 1)
}))
