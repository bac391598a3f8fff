// One session that messages are to reach by one path, a peer who writes to it, and all that she wrote.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { findText } from './find.mjs'
import { ModelServer } from './model-server.mjs'
import { Stage } from './stage.mjs'
import { until } from './util.mjs'

const notice = 'neither an instruction from your user nor an approval'
let count = 0

export class Scene {
  /**
   * A way in is {kind: tui or headless, room: options of Room, install(room), server, wake, enters, courier, reconnect, asks}. `wake` is the path
   * that the session must name before it is written to, `enters` what a message looks like that has come in at an idle
   * one. `courier` is the process that brings it in, and `reconnect` says that a person must start a dead server anew. `asks` is what a person does in a session that starts no turn
   * by itself: they say something, or ask for news, upon which the model calls check_messages.
   */
  constructor(way) {
    Object.assign(this, { way, stage: new Stage(), sent: [] })
  }
  async open() {
    this.model = new ModelServer()
    await this.model.listen()
    await this.stage.startBroker()
    this.peer = await this.stage.peer('alice')
    const tools = ['check_messages', 'list_peers'].map(t => this.tool(t))
    this.room = await this.stage.member('bob', { projects: ['api'], settings: { permissions: { allow: ['Bash', ...tools] } }, ...this.way.room })
    await this.way.install(this.room)
    this.early = await this.write('before', { to: 'bob' })
    await this.start()
    return this
  }
  async close() {
    await this.stage.close()
    await this.model?.close()
  }
  describe() { return this.b?.describe() }
  tool(name) { return `mcp__${this.way.server.replaceAll(':', '_')}__${name}` }

  /** Starts the session, or the one that goes on with it. */
  async start(...args) {
    this.b = await this.stage[this.way.kind](this.room, { args, model: this.model })
    await this.b.waitServer(this.way.server)
    await this.ready()
  }
  /** Waits until the session can be woken as it should. */
  ready() {
    const now = async () => this.at = await this.room.meshJson(['mode', '--session', 'api'], { fails: true }).catch(err => ({ err: String(err) }))
    return until(async () => { const m = await now(); return m.names?.length > 0 && (!this.way.wake || m.wake === this.way.wake) },
      { everyMs: 100, what: () => `${this.way.wake} in ${JSON.stringify(this.at)}\n${this.describe()}` })
  }

  /** Writes to the session. */
  async write(label, { to = 'bob/api', text = '', ...more } = {}) {
    const m = { text: `${label}-${++count}.${text}`, key: `${label}-${count}.` }
    this.sent.push(m)
    m.id = (await this.peer.send(to, m.text, more)).id
    return m
  }
  /** Writes, and waits until it lies on the session's disk. */
  async deliver(label, more) {
    const m = await this.write(label, more)
    await this.peer.told(m.id, 'delivered')
    return m
  }

  /** A name that no other prompt or tool has. */
  name(word) { return `${word}-${++count}` }
  /** Scripts what the model does upon a text, and returns the step's name. */
  step(tail, reply) {
    const name = this.name('step')
    this.model.add({ name, when: { tail: RegExp.escape?.(tail) ?? tail.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&') }, ...reply })
    return name
  }
  /** A person says something. */
  async say(word, reply) {
    const text = this.name(word)
    const step = reply && this.step(text, reply)
    await this.b.prompt(text)
    await this.b.waitText(text)
    return step
  }
  /** A person asks for news. */
  fetch() { return this.say('any news', { tools: [{ name: this.tool('check_messages'), input: {} }] }) }
  /** What a person does for a message to come in, where it does not come by itself. */
  async moment() {
    if (this.way.asks === 'tools') await this.fetch()
    else if (this.way.asks) await this.say('go on')
  }

  /** A turn whose tool runs until `go`. */
  async work() {
    const file = this.name('go')
    const step = await this.say('long work', { tools: [{ name: 'Bash', input: { command: `until [ -e ${file} ]; do sleep 0.1; done`, description: 'wait' } }] })
    await this.b.waitStep(step)
    return { go: () => fs.writeFileSync(path.join(this.room.project(), file), '') }
  }

  /** Waits until the model has read a message, in its frame, and its sender knows. */
  async arrived(m) {
    const hit = await this.b.waitText(m.key)
    framed(hit.text, m)
    await this.peer.told(m.id, 'read')
    this.once(m)
    return hit
  }
  once(...all) {
    for (const { key } of all) assert.equal(this.b.countText(key), 1, `${key} entered ${this.b.countText(key)} times:\n${this.trace(key)}`)
  }
  /** In which requests a text came new, for a person to read. */
  trace(key) {
    const hits = this.requests().filter(e => e.tail.includes(key))
    return hits.map(e => `request ${e.seq} of ${e.session}: ${e.tail.slice(0, 200)} ... ${e.tail.slice(Math.max(0, e.tail.indexOf(key) - 300), e.tail.indexOf(key) + 100)}`).join('\n---\n')
  }
  /** All that was ever written has entered once, also after another turn. */
  async allOnce() {
    await this.say('the last')
    this.once(...this.sent)
  }
  requests() { return this.model.log.filter(e => e.kind === 'main') }
  found(text) { return findText(this.model.log, text) }
}

/** The text stands in one frame of ours, behind the notice. */
function framed(text, m) {
  const frames = text.split('<peer-message ').slice(1).filter(f => f.includes(m.key))
  assert.equal(frames.length, 1, text)
  const [inside, ...after] = frames[0].split('</peer-message>')
  assert.ok(inside.startsWith('from=') && inside.includes(notice) && inside.includes(m.key), text)
  assert.ok(after.length > 0 && !after.join('').includes(m.key), text)
}
