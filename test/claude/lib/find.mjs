// Where and how often a text entered a conversation, from the requests that the scripted model has logged.
import { blockText } from './model-server.mjs'

const blocksOf = m => typeof m.content === 'string' ? [{ type: 'text', text: m.content }] : m.content
const main = log => log.filter(e => e.kind === 'main')

/**
 * The blocks of the first main request that holds the text: {seq, t, where, role, type, text}.
 * That request is the turn on which the model can first read it. What the model itself said does not count.
 */
export function findText(log, needle) {
  for (const e of main(log)) {
    const rows = []
    for (const [i, m] of e.messages.entries()) {
      if (m.role === 'assistant') continue
      for (const [j, b] of blocksOf(m).entries()) {
        const text = blockText(b)
        if (text.includes(needle)) rows.push({ seq: e.seq, t: e.t, where: `messages[${i}].content[${j}]`, role: m.role, type: b.type, text })
      }
    }
    if (rows.length) return rows
  }
  return []
}

/**
 * How often a text has entered: its occurrences in the last main request of each conversation, since every request
 * carries all that came before. A conversation is known by its session id, which /clear changes and --resume keeps.
 */
export function countText(log, needle) {
  const last = new Map(main(log).map(e => [e.session, e]))
  let n = 0
  for (const e of last.values()) {
    for (const m of e.messages) {
      if (m.role !== 'assistant') n += blocksOf(m).map(blockText).join('\n').split(needle).length - 1
    }
  }
  return n
}
