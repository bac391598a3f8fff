import net from 'node:net'

export const sleep = ms => new Promise(r => setTimeout(r, ms))

/** Polls until fn returns something truthy, and returns that; throws after timeoutMs. `what` may be a function, called then. */
export async function until(fn, { timeoutMs = 60_000, everyMs = 20, what = 'a condition' } = {}) {
  const end = Date.now() + timeoutMs
  for (;;) {
    const v = await fn()
    if (v) return v
    if (Date.now() > end) throw new Error(`timed out after ${timeoutMs} ms waiting for ${typeof what === 'function' ? what() : what}`)
    await sleep(everyMs)
  }
}

export const shellQuote = s => `'${String(s).replaceAll("'", `'\\''`)}'`

/**
 * Writes one message line to a session's inbox socket, Claude Code's own way from session to session on one machine.
 * Resolves when it is written: the socket never answers.
 */
export function postToSession(socket, text) {
  return new Promise((ok, bad) => {
    const c = net.connect(socket)
    c.on('error', bad)
    c.on('close', ok)
    c.end(JSON.stringify({ type: 'user', message: { role: 'user', content: text } }) + '\n')
  })
}
