// Somebody on the mesh without Claude Code: a `claudemesh mcp` that a test speaks to itself, and quickly.
import path from 'node:path'
import readline from 'node:readline'
import { spawn } from 'node:child_process'
import { meshBin } from './room.mjs'
import { until } from './util.mjs'

export class Peer {
  constructor(room) {
    this.room = room
    this.calls = []
    this.server = spawn(path.join(meshBin, 'claudemesh'), ['mcp'], { cwd: room.project(), env: room.env(), stdio: ['pipe', 'pipe', 'ignore'] })
    this.ended = new Promise(ok => this.server.on('close', ok))
    readline.createInterface({ input: this.server.stdout }).on('line', l => {
      const { id, result, error } = JSON.parse(l)
      if (id !== undefined) this.calls[id]({ error, ...result })
    })
  }
  async open() {
    await this.ask('initialize', { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'test', version: '1' } })
    return this
  }
  ask(method, params) {
    return new Promise(ok => this.server.stdin.write(JSON.stringify({ jsonrpc: '2.0', id: this.calls.push(ok) - 1, method, params }) + '\n'))
  }
  /** Calls a tool and returns its data; throws what the tool says has failed. */
  async call(name, args = {}) {
    const r = await this.ask('tools/call', { name, arguments: args })
    if (r.error || r.isError) throw new Error(JSON.stringify(r))
    return r.structuredContent
  }
  /** Sends a message and returns {id, state, ...}. */
  send(to, message, more = {}) { return this.call('send_message', { to, message, ...more }) }
  /** Waits until a message of this peer's is delivered, or read. */
  told(id, state) {
    const at = { delivered: ['delivered', 'read'], read: ['read'] }[state]
    let last
    return until(async () => {
      last = await this.call('message_status', { id })
      return last.to.some(r => at.includes(r.state))
    }, { everyMs: 50, what: () => `${state} in ${JSON.stringify(last)}` })
  }
  close() { this.server.stdin.end(); return this.ended }
}
