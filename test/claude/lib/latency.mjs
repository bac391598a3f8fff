/** Figures of a list of milliseconds: {n, p50, p95, max}. */
export function figures(ms) {
  const sorted = [...ms].sort((a, b) => a - b)
  const at = q => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]
  return { n: sorted.length, p50: at(0.5), p95: at(0.95), max: sorted.at(-1) }
}

/**
 * Sends n numbered texts into a session one by one, by `send(text)`, and measures from the call of it to the model
 * request that holds the text. Each waits until the session is as `ready` says.
 */
export async function measure(session, n, send, ready) {
  const ms = []
  for (let i = 1; i <= n; i++) {
    await ready()
    const text = `measured ${i} of ${n}.`
    const start = Date.now()
    await send(text)
    ms.push((await session.waitText(text)).t - start)
  }
  return figures(ms)
}
