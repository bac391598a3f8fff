// Every path by which a message enters a session, in every situation that a session can be in: each message enters
// once and in its frame, and its sender hears that it was read.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { after, test } from 'node:test'
import { Scene } from '../lib/scene.mjs'
import { situations } from '../lib/situations.mjs'
import { Table } from '../lib/table.mjs'

const plugin = 'plugin:claudemesh:claudemesh'
const installPlugin = room => room.installPlugin()
// The machine's owner allows no plugin a module; its settings hooks run.
const noMods = { managed: { pluginConfigs: { 'cc-plugin-sec-default@builtin': { options: { allowManagedModsOnly: true } } } } }

/** The plugin with its settings hooks alone. */
async function withoutWaiter(room) {
  await room.installPlugin()
  const file = path.join(room.home, '.claudemesh/claude/claudemesh/hooks/hooks.json')
  const { hooks } = JSON.parse(fs.readFileSync(file, 'utf8'))
  for (const groups of Object.values(hooks)) for (const g of groups) g.hooks = g.hooks.filter(h => !h.asyncRewake)
  room.write(file, { hooks })
}

const mod = { install: installPlugin, server: plugin, wake: 'mod', courier: /session-stream$/, enters: /^text of user: The claudemesh plugin sent a message:\n<peer-message/ }
const ways = {
  mod: { ...mod, kind: 'tui' },
  'mod, headless': { ...mod, kind: 'headless' },
  rewake: {
    kind: 'tui', install: installPlugin, room: noMods, server: plugin, reconnect: true, wake: 'rewake', courier: /hook rewake$/,
    enters: /^text of user: .*SYSTEM NOTIFICATION - NOT USER INPUT/s,
  },
  hooks: { kind: 'tui', install: withoutWaiter, server: plugin, reconnect: true, asks: 'prompt', enters: /^text of system: .*UserPromptSubmit hook additional context/s },
  tools: { kind: 'tui', install: room => room.addServer(), server: 'claudemesh', reconnect: true, asks: 'tools', enters: /^tool_result/ },
}
const chosen = process.env.WAYS?.split('|') ?? Object.keys(ways) // some of them, while one is at work on these

const table = new Table('Paths into a session, by what the session was doing', [...Object.keys(ways), 'channel'], Object.keys(situations))
after(() => console.log(`\n${table}\n`))

for (const name of Object.keys(situations)) table.explained('channel', name, 'Channels need the vendor\'s servers')
for (const name of ['draft', 'dialog']) table.explained('mod, headless', name, 'A headless session has no prompt box and no dialogs')
for (const name of ['hooks', 'tools']) table.explained(name, 'courier killed', 'Hooks and tools leave no process')

test('paths', { concurrency: 2 }, t => Promise.all(Object.entries(ways).filter(([name]) => chosen.includes(name)).map(([name, way]) => t.test(name, t => live(t, name, way)))))
if (!process.env.WAYS) test('no cell is open', () => assert.deepEqual(table.open(), []))
test('the limits are named in the documentation', () => {
  const text = fs.readFileSync(new URL('../../../docs/claude-code.md', import.meta.url), 'utf8')
  for (const limit of table.limits) assert.ok(text.includes(`**${limit}.**`), limit)
})

/** Leads one session through all situations; after one that failed, a new one. */
async function live(t, name, way) {
  let scene
  const end = async () => { await scene?.close(); scene = undefined }
  try {
    for (const [situation, happens] of Object.entries(situations)) {
      if (table.has(name, situation)) continue
      await table.cell(name, situation, async t => {
        try {
          scene ??= await new Scene(way).open()
          await happens(scene)
        } catch (err) {
          t.diagnostic(`${scene?.describe()}`)
          await end()
          throw err
        }
      }, t)
    }
    await t.test('each once', () => scene?.allOnce())
  } finally {
    await end()
  }
}
