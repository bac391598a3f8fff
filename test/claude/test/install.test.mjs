// claudemesh install and uninstall against the real Claude Code: what it then has, and that nothing stays.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Room } from '../lib/room.mjs'

const rooms = []
after(() => { for (const r of rooms) r.remove() })

/** A room in which claude and claudemesh are on PATH, and commands that run in it and print. */
function machine(options) {
  const room = new Room(fs.mkdtempSync(path.join(os.tmpdir(), 'mesh-')), options)
  rooms.push(room)
  const env = room.env()
  const run = (file, ...args) => {
    try {
      return execFileSync(file, args, { cwd: room.project(), env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 })
    } catch (err) {
      throw new Error(`${file} ${args.join(' ')}: ${err.message}\n${err.stdout}${err.stderr}`)
    }
  }
  const m = { room, dir: path.join(room.home, '.claudemesh'), claude: (...args) => run('claude', ...args), claudemesh: (...args) => run('claudemesh', ...args) }
  m.claudemesh('mcp') // ends with its input; the mailbox is there now, and stays
  m.look = () => ({ plugins: JSON.parse(m.claude('plugin', 'list', '--json')), servers: m.claude('mcp', 'list') })
  m.look() // what claude writes at its first start is there now
  return m
}

/** Every path below a home with its mode and its content's sum. */
function snapshot(home) {
  const all = {}
  for (const e of fs.readdirSync(home, { recursive: true, withFileTypes: true })) {
    const file = path.join(e.parentPath ?? e.path, e.name)
    const { mode } = fs.lstatSync(file)
    const sum = e.isFile() ? createHash('sha256').update(fs.readFileSync(file)).digest('hex') : ''
    all[path.relative(home, file)] = `${(mode & 0o7777).toString(8)} ${sum}`
  }
  return all
}

/** The paths in which two snapshots differ, but for the logs that claude keeps of each server it starts. */
function differences(before, now) {
  const logs = p => p === '.cache' || p.startsWith('.cache/claude-cli-nodejs')
  return [...new Set([...Object.keys(before), ...Object.keys(now)])].filter(p => before[p] !== now[p] && !logs(p) && !p.startsWith('.claudemesh/mailbox.db')).sort()
}

test('the plugin passes its own tests', () => {
  const m = machine()
  const dir = path.join(m.room.dir, 'plugin') // claude writes types into the folder that it tests
  fs.cpSync(fileURLToPath(new URL('../../../internal/claudecode/plugin', import.meta.url)), dir, { recursive: true })
  assert.match(m.claude('plugin', 'test', dir), / [1-9]\d* pass\n 0 fail\n/)
})

const ours = { type: 'stdio', command: 'claudemesh', args: ['mcp'], env: {} }
const ownSettings = '{\n\t"model": "opus",   "env": {"A": "b"}\n}'

for (const [name, settings] of [['no settings', null], ['settings of one\'s own', ownSettings]]) {
  test(`install is seen by claude, and uninstall leaves the home as it was: ${name}`, () => {
    const m = machine()
    const file = path.join(m.room.home, '.claude', 'settings.json')
    if (settings) fs.writeFileSync(file, settings, { mode: 0o640 })
    const before = snapshot(m.room.home)
    m.look()
    const idle = differences(before, snapshot(m.room.home)) // what claude changes by itself

    m.claudemesh('install', '-y', '--statusline')
    for (const dir of [path.join(m.dir, 'claude'), path.join(m.dir, 'claude', 'claudemesh')]) {
      const verdict = m.claude('plugin', 'validate', dir)
      assert.match(verdict, /Validation passed\n/)
      assert.doesNotMatch(verdict, /problems? the plugin directory refuses|with warnings/)
    }
    const { plugins, servers } = m.look()
    assert.equal(plugins.length, 1)
    assert.deepEqual([plugins[0].id, plugins[0].scope, plugins[0].enabled, plugins[0].errors], ['claudemesh@claudemesh', 'user', true, undefined])
    assert.equal(plugins[0].readFromFolder, path.join(m.dir, 'claude', 'claudemesh'))
    assert.match(servers, /^plugin:claudemesh:claudemesh: claudemesh mcp - ✔ Connected$/m)
    assert.equal(JSON.parse(fs.readFileSync(file, 'utf8')).statusLine.command, 'claudemesh statusline')
    assert.deepEqual(JSON.parse(m.claudemesh('install', '-y', '--json')).steps, [], 'a second run finds nothing to do')

    m.claudemesh('uninstall', '-y')
    assert.deepEqual(m.look().plugins, [])
    assert.deepEqual(differences(before, snapshot(m.room.home)), idle)
    if (settings) assert.equal(fs.readFileSync(file, 'utf8'), settings)
    assert.deepEqual(JSON.parse(m.claudemesh('uninstall', '-y', '--json')).steps, [], 'a second run finds nothing to do')
  })
}

test('the server alone', () => {
  const m = machine({ claudeJson: { mcpServers: {} } })
  const before = snapshot(m.room.home)
  m.claudemesh('install', '-y', '--mcp-only')
  assert.match(m.look().servers, /^claudemesh: claudemesh mcp - ✔ Connected$/m)
  assert.deepEqual(JSON.parse(m.claudemesh('install', '-y', '--mcp-only', '--json')).steps, [])
  m.claudemesh('uninstall', '-y')
  assert.doesNotMatch(m.look().servers, /claudemesh/)
  assert.deepEqual(differences(before, snapshot(m.room.home)), [])
})

test('a server registered by hand makes way for the plugin, one of another command stays', () => {
  const m = machine({ claudeJson: { mcpServers: { claudemesh: ours } } })
  assert.match(m.look().servers, /^claudemesh: claudemesh mcp - ✔ Connected$/m)
  m.claudemesh('install', '-y')
  assert.match(m.look().servers, /^plugin:claudemesh:claudemesh: claudemesh mcp - ✔ Connected$/m)
  assert.doesNotMatch(m.look().servers, /^claudemesh:/m)
  m.claudemesh('uninstall', '-y')
  m.claude('mcp', 'add', 'claudemesh', '--scope', 'user', '--', 'claudemesh', 'version')
  m.claudemesh('install', '-y')
  assert.match(m.look().servers, /^claudemesh: claudemesh version - /m)
  m.claudemesh('uninstall', '-y')
  assert.match(m.look().servers, /^claudemesh: claudemesh version - /m)
})

test('half an installation, another folder and a disabled plugin are mended', () => {
  const m = machine()
  const enabled = () => m.look().plugins.some(p => p.enabled && !p.errors && p.readFromFolder === path.join(m.dir, 'claude', 'claudemesh'))
  m.claudemesh('install', '-y')
  for (const harm of [
    () => m.claude('plugin', 'disable', 'claudemesh@claudemesh'),
    () => m.claude('plugin', 'uninstall', 'claudemesh@claudemesh'),
    () => m.claude('plugin', 'marketplace', 'remove', 'claudemesh'),
    () => fs.rmSync(path.join(m.dir, 'claude'), { recursive: true }),
    () => {
      const other = path.join(m.room.dir, 'other')
      m.claudemesh('--config-dir', other, 'install', '-y')
    },
  ]) {
    harm()
    assert.equal(enabled(), false, String(harm))
    m.claudemesh('install', '-y')
    assert.equal(enabled(), true, String(harm))
  }
  fs.rmSync(path.join(m.dir, 'claude'), { recursive: true }) // the record with it
  m.claudemesh('uninstall', '-y')
  assert.deepEqual(m.look().plugins, [])
  assert.deepEqual(JSON.parse(m.claude('plugin', 'marketplace', 'list', '--json')), [])
})

test('a directory of one\'s own, behind a symbolic link and with a space', () => {
  const m = machine()
  const [real, link] = ['own dir', 'a link'].map(name => path.join(m.room.dir, name))
  fs.mkdirSync(real, { mode: 0o700 })
  fs.symlinkSync(real, link)
  const before = snapshot(m.room.home)
  m.claudemesh('--config-dir', link, 'install', '-y')
  assert.ok(m.look().servers.includes(`plugin:claudemesh:claudemesh: claudemesh --config-dir ${link} mcp - ✔ Connected`))
  assert.deepEqual(JSON.parse(m.claudemesh('--config-dir', link, 'install', '-y', '--json')).steps, [])
  m.claudemesh('--config-dir', link, 'uninstall', '-y')
  assert.deepEqual(differences(before, snapshot(m.room.home)), [])
  assert.equal(fs.existsSync(path.join(real, 'claude')), false)
})

test('an older plugin is brought up when its server starts', () => {
  const m = machine()
  m.claudemesh('install', '-y')
  const file = path.join(m.dir, 'claude', 'claudemesh', '.mcp.json')
  const stamp = path.join(m.dir, 'claude', 'stamp.json')
  const text = fs.readFileSync(file, 'utf8')
  fs.appendFileSync(file, '\n')
  fs.writeFileSync(stamp, JSON.stringify({ ...JSON.parse(fs.readFileSync(stamp, 'utf8')), version: '0.0.0-before', sum: 'x' }))
  m.look() // starts it
  assert.equal(fs.readFileSync(file, 'utf8'), text)
})
