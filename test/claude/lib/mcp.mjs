// A session without a model: `claudemesh mcp`, called as a client of MCP calls it.
import path from 'node:path'
import { spawn } from 'node:child_process'
import { meshBin } from './room.mjs'

export class Mcp {
  constructor(room, project) { Object.assign(this, { room, cwd: room.project(project), waiting: new Map(), count: 0 }) }

  async open() {
    this.child = spawn(path.join(meshBin, 'claudemesh'), ['mcp'], { cwd: this.cwd, env: this.room.env(), stdio: ['pipe', 'pipe', 'inherit'] })
    this.ended = new Promise(ok => this.child.on('close', ok))
    this.child.stdin.on('error', () => { /* it has ended: the answer that stays away says so */ })
    let rest = ''
    this.child.stdout.on('data', d => {
      const lines = (rest + d).split('\n')
      rest = lines.pop()
      for (const m of lines.map(l => JSON.parse(l))) this.waiting.get(m.id)?.(m)
    })
    await this.request('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } })
    this.write({ method: 'notifications/initialized' })
    return this
  }
  write(message) { this.child.stdin.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n') }
  request(method, params) {
    const id = ++this.count
    return new Promise(ok => {
      this.waiting.set(id, m => { this.waiting.delete(id); ok(m) })
      this.write({ id, method, params })
    })
  }
  /** Calls a tool and resolves with its data; rejects with its text when it fails. */
  async call(name, args) {
    const { result, error } = await this.request('tools/call', { name, arguments: args })
    if (error || result.isError) throw new Error(error?.message ?? result.content[0].text)
    return result.structuredContent
  }
  close() { this.child.stdin.end(); return this.ended }
}
