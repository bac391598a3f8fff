// The mod against a stream that says what the test wants, without a session.
import { describe, expect, mock, test } from 'claude-code/testing'

const line = (instruction: object) => JSON.stringify(instruction) + '\n'
const socket = line({ do: 'socket', path: '/run/s' })

/** A session in which the stream prints `said` and answers events by name with `answers`. */
async function session($: any, on: any, said: string[], answers: Record<string, object> = {}, stays = true) {
  const s = { events: [] as any[], submits: [] as string[], logs: [] as string[], appended: [] as any[], spawned: [] as string[][], clock: mock.clock(on) }
  on('session.start', ($: any, e: any) => ({ cwd: e.cwd }))
  on('session.id', () => ({ value: 's-1' }))
  on('process.hookEnv', () => ({ value: { CLAUDE_PID: '7' } }))
  on('process.spawn', async function* ($: any, e: any) {
    s.spawned.push([...e.argv])
    for (const text of said) yield { stream: 'stdout', text }
    if (stays) await new Promise(() => {})
    return { value: { code: 0, signal: null } }
  })
  on('http.fetch', ($: any, e: any) => {
    const event = JSON.parse(e.init.body)
    s.events.push({ ...event, socketPath: e.init.socketPath })
    return { value: { status: 200, ok: true, headers: {}, text: JSON.stringify(answers[event.event] ?? {}) } }
  })
  on('prompt.submit', ($: any, e: any) => { s.submits.push(e.text); return { text: e.text, context: e.context } })
  on('tool.call', () => ({ result: { stdout: 'ran', stderr: '', interrupted: false } }))
  on('ui.log', ($: any, e: any) => { s.logs.push(e.text); return { value: undefined } })
  on('ui.status', () => ({ value: undefined }))
  on('session.append', ($: any, e: any, next: any) => { s.appended.push(e.message); return next(e) })
  await $.session.start({ surface: 'terminal', isInteractive: true, cwd: '/project' })
  await s.clock.settle()
  return s
}

describe('claudemesh', () => {
  test('says hello, and submits what it is given', async ($, on) => {
    const all = socket + line({ do: 'submit', batch: 'b1', text: 'hello from the mesh', holds: [] }) + line({ do: 'log', text: 'a line' })
    const s = await session($, on, [all.slice(0, 40), all.slice(40)])
    expect(s.spawned[0]?.at(-1)).toBe('session-stream')
    expect(s.events[0]?.event).toBe('hello')
    expect(s.events[0]?.session).toBe('s-1')
    expect(s.events[0]?.socketPath).toBe('/run/s')
    expect(s.submits.join()).toBe('hello from the mesh')
    expect(s.logs.join()).toBe('a line')
  })

  test('a tool result takes a doorbell with it, and what is urgent is appended', async ($, on) => {
    const s = await session($, on, [socket], { tool: { context: ['a doorbell'], append: 'at once', batch: 'b2', holds: [] } })
    const ran = await $.tool.call({ tool: 'Bash', command: 'ls' })
    expect(ran.context ?? []).toEqual(['a doorbell'])
    expect(s.appended.map(m => m.content[0].text)).toEqual(['at once'])
    const outcome = s.events.find(e => e.event === 'outcome').batches[0]
    expect([outcome.batch, outcome.via, outcome.over, outcome.failed].join()).toBe('b2,append,true,')
  })

  test('lives with a stream that writes what it does not write', async ($, on) => {
    const s = await session($, on, ['not JSON\n'], {}, false)
    const ran = await $.tool.call({ tool: 'Bash', command: 'ls' })
    expect(ran.context ?? []).toEqual([])
    expect(s.events.length).toBe(0)
  })

  test('begins an ended stream again', async ($, on) => {
    const s = await session($, on, [socket], {}, false)
    const before = s.spawned.length
    await s.clock.advance(1000)
    await s.clock.settle()
    expect(s.spawned.length > before).toBe(true)
  })
})
