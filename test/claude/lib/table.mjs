// The table of paths against situations: what the suite has proven, cell by cell.
import { test } from 'node:test'

export class Table {
  constructor(title, paths, situations) {
    Object.assign(this, { title, paths, situations, cells: new Map(), limits: [] })
  }
  at(path, situation) {
    if (!this.paths.includes(path) || !this.situations.includes(situation)) throw new Error(`no cell ${path} / ${situation}`)
    return `${path}\n${situation}`
  }
  /** A test that fills a cell; within another test if that is given. */
  cell(path, situation, body, within = { test }) {
    const key = this.at(path, situation)
    this.cells.set(key, 'FAILED')
    return within.test(`${path}, ${situation}`, async t => {
      await body(t)
      this.cells.set(key, 'passed')
    })
  }
  /** A cell that a limit of the client leaves without a test: the limit's name in docs/claude-code.md. */
  explained(path, situation, limit) {
    if (!this.limits.includes(limit)) this.limits.push(limit)
    this.cells.set(this.at(path, situation), `limit ${this.limits.indexOf(limit) + 1}`)
  }
  has(path, situation) { return this.cells.has(this.at(path, situation)) }
  /** The cells that have neither a test nor an explanation. */
  open() { return this.paths.flatMap(p => this.situations.filter(s => !this.has(p, s)).map(s => `${p}, ${s}`)) }
  toString() {
    const rows = [['', ...this.situations], ...this.paths.map(p => [p, ...this.situations.map(s => this.cells.get(this.at(p, s)) ?? '-')])]
    const width = rows[0].map((_, i) => Math.max(...rows.map(r => r[i].length)))
    const lines = rows.map(r => r.map((c, i) => c.padEnd(width[i])).join('  ').trimEnd())
    return [this.title, '', ...lines, '', ...this.limits.map((l, i) => `limit ${i + 1}: ${l}`)].join('\n').trimEnd()
  }
}
