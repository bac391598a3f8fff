// A scripted stand-in for the model's HTTP API: enough of POST /v1/messages for the real CLI to run a session offline.
// Listens on 127.0.0.1 only. README.md has the form of a script.
import http from 'node:http'
import { sleep } from './util.mjs'

/** All text of one content block, tool results included. */
export function blockText(b) {
  if (typeof b === 'string') return b
  if (!b) return ''
  if (b.type === 'text') return b.text
  if (b.type === 'tool_result') return contentText(b.content)
  if (b.type === 'tool_use') return `[tool_use ${b.name} ${JSON.stringify(b.input)}]`
  return ''
}
export const contentText = c => typeof c === 'string' ? c : Array.isArray(c) ? c.map(blockText).join('\n') : ''

/** Everything the model has not answered yet: the messages after the last assistant message. */
export function tailOf(messages) {
  let i = messages.length
  while (i > 0 && messages[i - 1].role !== 'assistant') i--
  return messages.slice(i)
}

/** main: the conversation loop (it offers tools); side: titles, classifiers, summaries. */
export function kindOf(body) {
  return Array.isArray(body.tools) && body.tools.length > 1 ? 'main' : 'side'
}

function matches(when, ctx) {
  if (when.kind && when.kind !== 'any' && when.kind !== ctx.kind) return false
  if (!when.kind && ctx.kind !== 'main') return false
  if (when.tail && !new RegExp(when.tail, 's').test(ctx.tail)) return false
  if (when.notTail && new RegExp(when.notTail, 's').test(ctx.tail)) return false
  if (when.tool && !ctx.tools.includes(when.tool)) return false
  if (when.system && !new RegExp(when.system, 's').test(ctx.system)) return false
  if (when.session && when.session !== ctx.session) return false
  return true
}

function sessionOf(body) {
  const raw = body.metadata?.user_id ?? ''
  try { return JSON.parse(raw).session_id } catch { return /session_([0-9a-f-]{36})/.exec(raw)?.[1] ?? '' }
}

export class ModelServer {
  constructor(steps = []) {
    this.log = []
    this.script(steps)
    this.seq = 0
    this.server = http.createServer((q, s) => this.handle(q, s).catch(err => {
      if (!s.headersSent) s.writeHead(500)
      s.end(String(err?.stack ?? err))
    }))
  }
  /** Replaces the script. */
  script(steps) {
    this.steps = []
    this.add(...steps)
  }
  add(...steps) {
    for (const s of steps) this.steps.push({ times: 1, when: {}, ...s, used: 0 })
  }
  listen(port = 0) {
    return new Promise((ok, bad) => {
      this.server.once('error', bad)
      this.server.listen(port, '127.0.0.1', () => ok(this.url = `http://127.0.0.1:${this.server.address().port}`))
    })
  }
  close() { this.server.closeAllConnections?.(); return new Promise(r => this.server.close(r)) }

  record(entry) {
    entry = { seq: ++this.seq, t: Date.now(), ...entry }
    this.log.push(entry)
    return entry
  }

  async handle(req, res) {
    const url = new URL(req.url, this.url)
    const chunks = []
    for await (const c of req) chunks.push(c)
    const raw = Buffer.concat(chunks).toString('utf8')
    const json = (code, v) => { res.writeHead(code, { 'content-type': 'application/json' }); res.end(JSON.stringify(v)) }

    if (req.method === 'POST' && url.pathname === '/v1/messages') return this.messages(req, res, raw, json)
    if (req.method === 'POST' && url.pathname === '/v1/messages/count_tokens') {
      this.record({ path: url.pathname, method: req.method, kind: 'count_tokens' })
      return json(200, { input_tokens: Math.ceil(raw.length / 4) })
    }
    this.record({ path: url.pathname + url.search, method: req.method, kind: 'other', body: raw.slice(0, 2000) })
    if (url.pathname === '/' || req.method === 'HEAD') return res.writeHead(200).end()
    return json(404, { type: 'error', error: { type: 'not_found_error', message: `${req.method} ${url.pathname} is not scripted` } })
  }

  async messages(req, res, raw, json) {
    const body = JSON.parse(raw)
    const kind = kindOf(body)
    const ctx = {
      kind,
      tail: tailOf(body.messages).map(m => contentText(m.content)).join('\n'),
      tools: (body.tools ?? []).map(t => t.name),
      system: contentText(body.system ?? ''),
      session: sessionOf(body),
    }
    const step = this.steps.find(s => s.used < s.times && matches(s.when, ctx))
    if (step) step.used++
    const reply = step ?? { text: 'ok', name: '(default)' }
    const entry = this.record({
      path: '/v1/messages', method: 'POST', kind, step: reply.name ?? '(unnamed)', session: ctx.session,
      model: body.model, tools: ctx.tools, tail: ctx.tail, system: body.system, messages: body.messages,
    })
    if (reply.delayMs) await sleep(reply.delayMs)
    if (reply.error) return json(reply.error.status ?? 500, { type: 'error', error: { type: reply.error.type ?? 'api_error', message: reply.error.message ?? 'scripted' } })

    const content = []
    const say = Array.isArray(reply.text) ? reply.text : reply.text != null ? [reply.text] : []
    for (const text of say) content.push({ type: 'text', text })
    for (const [i, call] of (reply.tools ?? []).entries()) {
      content.push({ type: 'tool_use', id: `toolu_${String(entry.seq).padStart(6, '0')}_${i}`, name: call.name, input: typeof call.input === 'function' ? call.input(ctx) : call.input ?? {} })
    }
    if (!content.length) content.push({ type: 'text', text: 'ok' })
    const stop_reason = reply.tools?.length ? 'tool_use' : 'end_turn'
    const usage = { input_tokens: Math.ceil(raw.length / 4), output_tokens: 10, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 }
    const message = { id: `msg_${entry.seq}`, type: 'message', role: 'assistant', model: body.model, content: [], stop_reason: null, stop_sequence: null, usage }
    entry.answered = { content, stop_reason }
    if (!body.stream) return json(200, { ...message, content, stop_reason })

    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'request-id': `req_${entry.seq}` })
    const send = (type, data) => res.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`)
    send('message_start', { message })
    for (const [index, b] of content.entries()) {
      if (b.type === 'text') {
        send('content_block_start', { index, content_block: { type: 'text', text: '' } })
        for (const piece of reply.chunkMs ? b.text.split(/(?<=\s)/) : [b.text]) {
          send('content_block_delta', { index, delta: { type: 'text_delta', text: piece } })
          if (reply.chunkMs) await sleep(reply.chunkMs)
        }
      } else {
        send('content_block_start', { index, content_block: { ...b, input: {} } })
        send('content_block_delta', { index, delta: { type: 'input_json_delta', partial_json: JSON.stringify(b.input) } })
      }
      send('content_block_stop', { index })
    }
    send('message_delta', { delta: { stop_reason, stop_sequence: null }, usage: { output_tokens: 10 } })
    send('message_stop', {})
    res.end()
  }
}
