/**
 * Which boot of the machine this is. The page cache outlives a process but not a boot: a session that was opened in
 * another boot may have lost whatever was not synced.
 */
import fs from 'node:fs'

export function currentBootId(): string {
  return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}
