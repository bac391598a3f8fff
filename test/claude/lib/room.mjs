// A clean room for one person: own HOME, own project directories, nothing of the caller's environment but PATH.
import fs from 'node:fs'
import path from 'node:path'
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { until } from './util.mjs'

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const needed = name => process.env[name] ?? (() => { throw new Error(`set ${name}, or run make test-claude`) })()
export const claudeBin = needed('CLAUDE_BIN')
export const meshBin = needed('CLAUDEMESH_BIN')
const apiKey = 'dummy'

export class Room {
  /**
   * In dir, with the projects named, each trusted as if the person had said so. `settings` is the person's
   * settings.json, `claudeJson` more of their .claude.json; `managed` is what sessions see as the machine's managed settings.
   */
  constructor(dir, { projects = ['web'], settings, claudeJson, managed } = {}) {
    this.dir = dir
    this.home = path.join(dir, 'home')
    this.projects = projects.map(p => path.join(dir, p))
    for (const d of [path.join(this.home, '.claude'), ...this.projects]) fs.mkdirSync(d, { recursive: true })
    this.write(path.join(this.home, '.claude.json'), {
      hasCompletedOnboarding: true,
      theme: 'dark',
      customApiKeyResponses: { approved: [apiKey], rejected: [] },
      projects: Object.fromEntries(this.projects.map(p => [p, { hasTrustDialogAccepted: true, hasCompletedProjectOnboarding: true }])),
      ...claudeJson,
    })
    if (settings) this.write(path.join(this.home, '.claude', 'settings.json'), settings)
    if (managed) this.write(this.managed = path.join(dir, 'managed.json'), managed)
  }
  write(file, value) { fs.writeFileSync(file, JSON.stringify(value, null, 1)) }
  project(name) {
    const dir = path.join(this.dir, name ?? path.basename(this.projects[0]))
    if (!this.projects.includes(dir)) throw new Error(`the room has no project ${name}`)
    return dir
  }

  /** With these variables the client makes no request and no DNS look-up but for its model's. */
  env(modelUrl = 'http://127.0.0.1:9', extra = {}) {
    return {
      PATH: [meshBin, path.dirname(claudeBin), process.env.PATH].join(':'),
      HOME: this.home, TERM: 'xterm-256color', LANG: 'C.UTF-8', SHELL: '/bin/bash',
      ANTHROPIC_BASE_URL: modelUrl, ANTHROPIC_API_KEY: apiKey,
      DISABLE_TELEMETRY: '1', DISABLE_AUTOUPDATER: '1', DISABLE_ERROR_REPORTING: '1', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
      CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL: '1', IS_SANDBOX: '1', ...extra,
    }
  }
  /** The client's command line, inside the managed settings if the room has any. */
  claudeArgv(args) {
    if (!this.managed) return [claudeBin, ...args]
    return [path.join(root, 'managed.sh'), this.managed, fs.mkdtempSync(path.join(this.dir, 'etc-')), claudeBin, ...args]
  }

  /** Runs a command in the room; resolves with {code, stdout, stderr}, and rejects when it fails unless `fails` is set. */
  run(argv, { project, input, env, fails = false, timeoutMs = 60_000 } = {}) {
    return new Promise((ok, bad) => {
      const options = { cwd: this.project(project), env: this.env(undefined, env), timeout: timeoutMs, maxBuffer: 1 << 24 }
      const child = execFile(argv[0], argv.slice(1), options, (err, stdout, stderr) => {
        if (err && !fails) bad(new Error(`${argv.join(' ')}: ${err.message}\n${stdout}${stderr}`))
        else ok({ code: child.exitCode, stdout, stderr })
      })
      child.stdin.on('error', () => { /* it ended without reading: its exit code says more */ })
      child.stdin.end(input)
    })
  }
  mesh(args, options) { return this.run([path.join(meshBin, 'claudemesh'), ...args], options) }
  /** As mesh, with --json: resolves with what it printed. */
  async meshJson(args, options) { return JSON.parse((await this.mesh([...args, '--json'], options)).stdout) }
  claude(args, options) { return this.run(this.claudeArgv(args), options) }

  send(to, text, ...flags) { return this.meshJson(['send', ...flags, '--', to, text]) }
  inbox(...flags) { return this.meshJson(['inbox', ...flags]) }
  status() { return this.meshJson(['status']) }
  /** Waits until others are told that a session can be woken by that path, and returns its full name; `name` may be its label alone. */
  waitPeer(name, wake = 'mod') {
    const called = p => p.name === name || p.label === name
    return until(async () => (await this.meshJson(['peers'])).find(p => called(p) && p.wake === wake)?.name, { what: `${name} to be there by ${wake}` })
  }
  /** The tools without the plugin, as `claude mcp add` registers them. */
  addServer() { return this.claude(['mcp', 'add', 'claudemesh', '--scope', 'user', '--', 'claudemesh', 'mcp']) }
  /** Whether `claudemesh up` has been here. */
  hasBroker() { return fs.existsSync(path.join(this.home, '.claudemesh', 'broker')) }
  installPlugin() { return this.mesh(['install', '-y']) }

  remove() { fs.rmSync(this.dir, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 }) }
}
