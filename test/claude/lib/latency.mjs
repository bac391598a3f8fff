// Times from the sending of a text to the model's request that holds it, of several ways taken in turn.
import { until } from './util.mjs'

/** Figures of a list of milliseconds: {n, p50, p95, max}. */
export function figures(ms) {
  const sorted = [...ms].sort((a, b) => a - b)
  const at = q => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]
  return { n: sorted.length, p50: at(0.5), p95: at(0.95), max: sorted.at(-1) }
}

/** Waits for the main request whose news hold the text. Older requests are let go: those of a long run would not fit into memory. */
async function arrival({ model, describe, name }, text) {
  const e = await until(() => model.log.find(e => e.kind === 'main' && e.tail.includes(text)), { everyMs: 2, what: () => `${text} in ${name}` })
  model.log.splice(0, model.log.indexOf(e))
  return e.t
}

/**
 * Takes each way n times, one way after the other, so that what disturbs the machine disturbs all of them. A first
 * time does not count: a session's first turns are slow.
 * A way is {name, session, ready, send, beside}: `send(text)` resolves when the text is accepted, with the moment of
 * the call, Unix milliseconds, where that is not the call of send. Adds to each way `called`, milliseconds from the
 * call, and `accepted`, those from the acceptance.
 */
export async function interleave(ways, n) {
  for (const way of ways) Object.assign(way, { called: [], accepted: [] })
  for (let i = 0; i <= n; i++) {
    for (const way of ways) {
      await way.ready()
      const text = `measured: ${way.name}, ${i} of ${n}.`
      const begun = Date.now()
      const sent = way.send(text).then(called => ({ called: called ?? begun, accepted: Date.now() }))
      const t = await arrival(way.session, text)
      const { called, accepted } = await sent
      if (i === 0) continue
      way.called.push(t - called)
      way.accepted.push(t - accepted)
    }
  }
}

/** The table of ways; the p50 of each is compared with that of the way that its `beside` names. */
export function table(ways) {
  const rows = ways.map(w => {
    const [called, accepted] = [w.called, w.accepted].map(figures)
    const own = ways.find(o => o.name === w.beside)
    return [w.name, called.n, called.p50, called.p95, own ? (called.p50 / figures(own.called).p50).toFixed(2) : '', accepted.p50, accepted.p95]
  })
  const all = [['', 'runs', 'p50', 'p95', 'ratio', 'accepted p50', 'p95'], ...rows].map(r => r.map(String))
  const width = all[0].map((_, i) => Math.max(...all.map(r => r[i].length)))
  return all.map(r => r.map((c, i) => i ? c.padStart(width[i]) : c.padEnd(width[i])).join('  ').trimEnd()).join('\n')
}
