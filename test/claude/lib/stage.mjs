// A broker, a mesh and rooms of its members: what a test of two or more sessions stands on.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { spawn } from 'node:child_process'
import { Peer } from './peer.mjs'
import { Room, meshBin } from './room.mjs'
import { Headless, Tui } from './session.mjs'
import { until } from './util.mjs'

export class Stage {
  constructor() {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'mesh-'))
    this.rooms = []
    this.members = []
    this.sessions = []
    this.peers = []
    this.address = '127.0.0.1:0'
  }

  /** Starts the broker, which lets a member send a burst; a second time, after killBroker, on the same file and port. */
  async startBroker() {
    const log = fs.openSync(path.join(this.dir, 'broker.log'), 'a')
    const broker = this.broker = spawn(path.join(meshBin, 'claudemesh-broker'),
      ['--db', path.join(this.dir, 'mesh.db'), '--listen', this.address, '--open', '--sends-per-minute', '6000', '--send-burst', '200'], { stdio: ['ignore', 'pipe', log] })
    fs.closeSync(log)
    broker.ended = new Promise(ok => broker.on('close', ok))
    let out = ''
    broker.stdout.on('data', d => { out += d })
    this.url = await until(() => /^listening on (\S+)/m.exec(out)?.[1], { what: () => `the broker\n${this.brokerLog()}` })
    this.address = new URL(this.url).host
  }
  brokerLog() { return fs.readFileSync(path.join(this.dir, 'broker.log'), 'utf8').split('\n').slice(-10).join('\n') }
  async killBroker(signal = 'SIGKILL') {
    this.broker?.kill(signal)
    await this.broker?.ended
  }

  /** A room of somebody who is in no mesh yet. Options as of Room. */
  room(name, options) {
    const room = new Room(path.join(this.dir, name), options)
    this.rooms.push(room)
    return room
  }

  /** A room of a new member: the first founds the mesh, the others join by an invite of the first. */
  async member(name, options) {
    const room = this.room(name, options)
    const { owner } = this
    if (!owner) {
      this.owner = room
      await room.mesh(['new', 'acme', '--broker', this.url, '--as', name])
    } else {
      const { stdout: link } = await owner.mesh(['invite'])
      await room.mesh(['join', '-', '--as', name, '--yes'], { input: link })
    }
    for (const other of this.members) { // as people who work together: now means now
      await other.room.mesh(['grant', name, 'trusted'])
      await room.mesh(['grant', other.name, 'trusted'])
    }
    this.members.push({ name, room })
    return room
  }

  /** A member without Claude Code, whom the test speaks for. */
  async peer(name) {
    const peer = new Peer(await this.member(name))
    this.peers.push(peer)
    return peer.open()
  }

  /** Sessions; options: steps of the script, args and env of claude, project, and model, to go on with that of an earlier session. */
  tui(room, options) { return this.open(new Tui(room, options)) }
  headless(room, options) { return this.open(new Headless(room, options)) }
  open(session) {
    this.sessions.push(session)
    return session.open()
  }

  /** Ends everything. KEEP_ROOMS=1 leaves the directories, with debug logs and transcripts. */
  async close() {
    await Promise.allSettled([...this.sessions, ...this.peers].map(s => s.close()))
    await this.killBroker()
    await Promise.allSettled(this.rooms.filter(r => r.hasBroker()).map(r => r.mesh(['down'])))
    if (process.env.KEEP_ROOMS) return console.log(`kept ${this.dir}`)
    for (const r of this.rooms) r.remove()
    fs.rmSync(this.dir, { recursive: true, force: true })
  }
}

/** A test body that gets a stage with its broker running, which is taken down whatever happens. */
export const onStage = body => async t => {
  const stage = new Stage()
  try {
    await stage.startBroker()
    await body(stage, t)
  } catch (err) {
    for (const s of stage.sessions) t.diagnostic(`${s.name} in ${s.room.dir}:\n${s.describe()}`)
    throw err
  } finally {
    await stage.close()
  }
}
