// The processes below one of ours, from /proc. Nothing is ever found or killed by a name alone.
import fs from 'node:fs'

/** All processes: {pid, ppid, args}; args are the words of the command line, joined by spaces. */
function processes() {
  const all = []
  for (const pid of fs.readdirSync('/proc').filter(d => /^\d+$/.test(d)).map(Number)) {
    try {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
      const ppid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
      all.push({ pid, ppid, args: fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim() })
    } catch { /* it has ended */ }
  }
  return all
}

/** The processes below pid, nearest first. */
export function descendants(pid) {
  const all = processes()
  const found = []
  for (let level = [pid]; level.length;) {
    const next = all.filter(p => level.includes(p.ppid))
    found.push(...next)
    level = next.map(p => p.pid)
  }
  return found
}

/** Signals every process below pid whose command line matches, and returns them. */
export function killBelow(pid, match, signal = 'SIGKILL') {
  const hit = descendants(pid).filter(p => match.test(p.args))
  for (const p of hit) process.kill(p.pid, signal)
  return hit
}

/** Whether a process runs; one that has ended and whose parent has not asked yet does not. */
export function isAlive(pid) {
  try { return !/\) Z /.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8')) } catch { return false }
}

/** Kills a process that should have ended by itself. */
export function end(pid) { try { process.kill(pid, 'SIGKILL') } catch { /* it has */ } }
