// Real sessions of Claude Code in a room, each with a scripted model of its own.
import fs from 'node:fs'
import path from 'node:path'
import { execFileSync, spawn } from 'node:child_process'
import { countText, findText } from './find.mjs'
import { ModelServer } from './model-server.mjs'
import { descendants, end, isAlive, killBelow } from './processes.mjs'
import { shellQuote, until } from './util.mjs'

let count = 0

/** What interactive and headless sessions share. Options as of Stage.tui, and `via`: the words of a command that becomes claude. */
class Session {
  constructor(room, { steps = [], args = [], env = {}, via, project, model } = {}) {
    Object.assign(this, { room, env, via, cwd: room.project(project), name: `session-${++count}` })
    this.model = model ?? new ModelServer(steps)
    this.ownsModel = !model
    this.debugFile = path.join(room.dir, `${this.name}.log`)
    this.args = ['--permission-mode', 'manual', '--debug-file', this.debugFile, ...args]
  }
  async open() {
    if (this.ownsModel) await this.model.listen()
    await this.start()
    return this
  }
  /** The command line of claude, or of what becomes it. */
  argv(args) { return this.via ? [...this.via, ...args] : this.room.claudeArgv(args) }
  /** Waits until the model was given the text, and returns where: {seq, t, where, role, type, text} of its first block. */
  waitText(text, options) {
    return until(() => findText(this.model.log, text)[0], { what: () => `${text} in ${this.name}\n${this.describe()}`, ...options })
  }
  countText(text) { return countText(this.model.log, text) }
  /** Waits until a step of the script has been taken, and returns that request. */
  waitStep(step, options) {
    return until(() => this.model.log.find(e => e.step === step), { what: () => `step ${step} in ${this.name}\n${this.describe()}`, ...options })
  }
  /** The processes that Claude Code has started, and theirs. */
  children() { return descendants(this.pid) }
  /** Waits for a child by its command line. */
  waitChild(match, options) { return until(() => this.children().find(p => match.test(p.args)), { what: () => `${match} below ${this.name}\n${this.describe()}`, ...options }) }
  /** Kills the children whose command line matches; there must be one. */
  kill(match, signal) {
    const hit = killBelow(this.pid, match, signal)
    if (!hit.length) throw new Error(`no ${match} below ${this.name}: ${this.children().map(p => p.args).join(' | ')}`)
    return hit
  }
  /** Waits until an MCP server is connected, by the client's own log; `times` tells a reconnection from the first. */
  waitServer(name = 'claudemesh', { times = 1, ...options } = {}) {
    const line = `MCP server "${name}": Successfully connected`
    const connected = () => { try { return fs.readFileSync(this.debugFile, 'utf8').split(line).length > times } catch { return false } }
    return until(connected, { what: () => `server ${name} in ${this.name}\n${this.describe()}`, ...options })
  }
  /** What the session writes about itself for others: {sessionId, name, status, messagingSocketPath, ...}. */
  registered() {
    const file = path.join(this.room.home, '.claude', 'sessions', `${this.pid}.json`)
    return until(() => { try { return JSON.parse(fs.readFileSync(file, 'utf8')) } catch { return undefined } }, { what: file })
  }
  /** Ends it and waits for its processes to be gone, so that nothing writes into the room any more. */
  async close() {
    const pids = this.pid ? [this.pid, ...this.children().map(p => p.pid)] : []
    await this.stop()
    await until(() => !pids.some(isAlive), { timeoutMs: 10_000 }).catch(() => { for (const pid of pids) end(pid) })
    if (this.ownsModel) await this.model.close()
  }
}

/** An interactive session under tmux, on a tmux server of its own. */
export class Tui extends Session {
  async start() {
    this.socket = path.join(this.room.dir, `${this.name}.tmux`)
    const vars = Object.entries(this.room.env(this.model.url, this.env)).map(([k, v]) => `${k}=${shellQuote(v)}`).join(' ')
    const line = `env -i ${vars} ${this.argv(this.args).map(shellQuote).join(' ')}; echo EXITED $?; cat >/dev/null`
    this.tmux('new-session', '-d', '-s', 'main', '-x', '120', '-y', '50', '-c', this.cwd, line)
    const shell = Number(this.tmux('display-message', '-p', '-t', 'main', '#{pane_pid}'))
    await this.waitScreen(/^❯/m)
    this.pid = (await until(() => descendants(shell)[0], { what: 'claude below tmux' })).pid
  }
  tmux(...args) {
    const env = { PATH: process.env.PATH, HOME: '/nonexistent', LANG: 'C.UTF-8', TERM: 'xterm-256color' }
    return execFileSync('tmux', ['-S', this.socket, ...args], { encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'pipe'] })
  }
  screen(history = 0) { return this.tmux('capture-pane', '-p', '-t', 'main', '-S', `-${history}`).replace(/[ \t]+$/gm, '').replace(/\n{3,}/g, '\n\n').trimEnd() }
  describe() { try { return this.screen() } catch (err) { return String(err) } }
  waitScreen(match, options) {
    return until(() => { const s = this.screen(); return match.test(s) && s }, { what: () => `${match} on the screen of ${this.name}\n${this.describe()}`, ...options })
  }
  /** What stands in the prompt box. A no-break space follows its mark. */
  draft() { return /^❯[\s\u00a0]?(.*)$/m.exec(this.screen().split('\n').filter(l => l.startsWith('❯')).at(-1) ?? '')?.[1].trim() }
  keys(...names) { this.tmux('send-keys', '-t', 'main', ...names) }
  /** Types a short text into the prompt box and leaves it there. A panel that closes just then may take the keys: then again. */
  async write(text) {
    let tries = 0
    const typed = () => {
      if (tries++ === 0 || this.draft() === '') this.tmux('send-keys', '-t', 'main', '-l', text)
      return until(() => this.draft() === text, { timeoutMs: 2000 }).catch(() => false)
    }
    await until(typed, { what: () => `${text} in the prompt box\n${this.describe()}` })
  }
  /** Types a short text and enters it. An Enter that comes close behind the text is taken as part of a paste: then it is pressed again. */
  async prompt(text) {
    await this.write(text)
    await this.enter(text)
  }
  /** Enters what stands in the prompt box. */
  async enter(text) {
    await until(() => { this.keys('Enter'); return until(() => this.draft() !== text, { timeoutMs: 1000 }).catch(() => false) }, { what: () => `${text} to be entered\n${this.describe()}` })
  }
  /** Breaks the running turn off. */
  async interrupt() {
    this.keys('Escape')
    await this.waitScreen(/Interrupted/)
  }
  /** Leaves it as a person does. */
  async leave() {
    await this.prompt('/exit')
    await this.waitScreen(/^EXITED/m)
    await this.close()
  }
  async stop() { try { this.tmux('kill-server') } catch { /* it has ended */ } }
}

/** A long-lived headless session, fed and read in stream-json. */
export class Headless extends Session {
  async start() {
    const argv = this.argv(['-p', '--input-format', 'stream-json', '--output-format', 'stream-json', '--verbose', ...this.args])
    this.events = []
    this.stderr = ''
    this.child = spawn(argv[0], argv.slice(1), { cwd: this.cwd, env: this.room.env(this.model.url, this.env), stdio: 'pipe' })
    this.pid = this.child.pid
    this.ended = new Promise(ok => this.child.on('close', code => { this.code = code; ok(code) }))
    let rest = ''
    this.child.stdout.on('data', d => {
      const lines = (rest + d).split('\n')
      rest = lines.pop()
      for (const l of lines) if (l.trim()) this.events.push(JSON.parse(l))
    })
    this.child.stderr.on('data', d => { this.stderr += d })
    this.child.stdin.on('error', () => { /* it has ended; the test sees that by `code` */ })
  }
  describe() { return `exit ${this.code}\n${this.stderr}${this.events.slice(-5).map(e => JSON.stringify(e).slice(0, 300)).join('\n')}` }
  async prompt(text) { this.child.stdin.write(JSON.stringify({ type: 'user', message: { role: 'user', content: text } }) + '\n') }
  /** Breaks the running turn off. */
  async interrupt() {
    const id = `interrupt-${++count}`
    this.child.stdin.write(JSON.stringify({ type: 'control_request', request_id: id, request: { subtype: 'interrupt' } }) + '\n')
    await until(() => this.events.some(e => e.type === 'control_response' && e.response.request_id === id), { what: () => `the interruption\n${this.describe()}` })
  }
  /** Ends the input, upon which the session ends by itself; resolves with its exit code. */
  finish() { this.child.stdin.end(); return this.ended }
  leave() { return this.finish() }
  async stop() { if (this.code === undefined) this.child.kill('SIGKILL'); await this.ended }
}
