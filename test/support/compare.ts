/** Comparing two directory trees byte for byte, holes at the speed of holes. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

/** Differences of names, types, modes, sizes, times and bytes; [] when there are none. */
export function differences(first: string, second: string, options: { times: boolean } = { times: true }): string[] {
  const found: string[] = []
  compare(first, second, '', found, options)
  return found
}

function compare(first: string, second: string, name: string, found: string[], options: { times: boolean }): void {
  const one = fs.lstatSync(path.join(first, name), { bigint: true })
  const other = fs.lstatSync(path.join(second, name), { bigint: true })
  if (one.mode !== other.mode) found.push(`${name}: mode ${one.mode.toString(8)} and ${other.mode.toString(8)}`)
  if (one.uid !== other.uid || one.gid !== other.gid) found.push(`${name}: owner`)
  if (!one.isDirectory() && one.size !== other.size)
    found.push(`${name}: size ${String(one.size)} and ${String(other.size)}`)
  if (options.times && one.mtimeNs !== other.mtimeNs)
    found.push(`${name}: mtime ${String(one.mtimeNs)} and ${String(other.mtimeNs)}`)
  if (one.isSymbolicLink()) {
    if (fs.readlinkSync(path.join(first, name)) !== fs.readlinkSync(path.join(second, name)))
      found.push(`${name}: target`)
  } else if (one.isDirectory()) {
    const names = fs.readdirSync(path.join(first, name)).sort()
    const otherNames = fs.readdirSync(path.join(second, name)).sort()
    if (names.join('/') !== otherNames.join('/')) found.push(`${name}: ${names.join(' ')} and ${otherNames.join(' ')}`)
    for (const child of names)
      if (otherNames.includes(child)) compare(first, second, path.join(name, child), found, options)
  } else if (one.isFile() && one.size === other.size && !sameBytes(path.join(first, name), path.join(second, name))) {
    found.push(`${name}: bytes`)
  }
}

export function sameBytes(first: string, second: string): boolean {
  try {
    execFileSync('cmp', ['-s', first, second])
    return true
  } catch {
    return false
  }
}
