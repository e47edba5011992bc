/** The share: how it is mounted, how fast it answers, whether its clock and its free space are what they should be. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import { messageOf } from '../../base/errors.js'
import { programFile } from '../../base/program-files.js'
import type { Finding } from '../../vmm/advice.js'
import { bytes } from '../figures.js'
import type { Probed } from './probe-share.js'

const ANSWER_MS_MAX = 20_000
const READ_MS_MAX = 20
const BYTES_PER_SECOND_MIN = 12 * 1024 * 1024
const CLOCK_MS_MAX = 5000
const FREE_BYTES_MIN = 2 * 1024 ** 3
const RSIZE_MIN = 128 * 1024

/** undefined: it does not answer. Rejects when it cannot be looked at. */
export function probeShare(directory: string, limitMs = ANSWER_MS_MAX): Promise<Probed | undefined> {
  const program = programFile('cli/doctor/probe-share.js')
  return new Promise((resolve, reject) => {
    const options = { timeout: limitMs, killSignal: 'SIGKILL' as const, cwd: '/' }
    execFile(process.execPath, [program, directory], options, (error, stdout, stderr) => {
      if (error?.killed === true) resolve(undefined)
      else if (error !== null) reject(new Error(/^Error: (.*)$/m.exec(stderr)?.[1] ?? messageOf(error)))
      else resolve(JSON.parse(stdout) as Probed) // what probe-share.ts has printed
    })
  })
}

export function shareText({ readMs, writeMs, bytesPerSecond }: Probed): string {
  const parts = [
    ...(readMs === null ? [] : [`${readMs.toFixed(1)} ms to the first bytes of a chunk`]),
    ...(bytesPerSecond === null ? [] : [`${bytes(bytesPerSecond)}/s`]),
    writeMs === null ? 'not writable for you' : `${writeMs.toFixed(1)} ms to write a small file`
  ]
  return parts.join(', ')
}

export function shareFindings(directory: string, probed: Probed | undefined): Finding[] {
  const at = (severity: Finding['severity'], what: string, why: string, change: string): Finding => ({
    severity,
    file: directory,
    what,
    why,
    change
  })
  if (probed === undefined) {
    const why = 'what is cached stays readable; everything else waits, and a suspend cannot be published'
    return [at('error', 'the share does not answer', why, 'look at the server and the network')]
  }
  const { readMs, writeMs, bytesPerSecond, clockAheadMs, freeBytes } = probed
  const findings: Finding[] = []
  if (readMs !== null && readMs > READ_MS_MAX) {
    const what = `the share takes ${readMs.toFixed(0)} ms for the first bytes of a chunk`
    findings.push(
      at('warning', what, 'each block that is not here costs that once', 'isrfs warm while you wait for nothing')
    )
  }
  if (bytesPerSecond !== null && bytesPerSecond < BYTES_PER_SECOND_MIN) {
    const what = `the share gives ${bytes(bytesPerSecond)}/s`
    findings.push(
      at(
        'warning',
        what,
        'a suspend sends what was changed at about that speed',
        'a faster link; changes are sent while the guest runs, so suspend when it has been quiet'
      )
    )
  }
  if (writeMs === null) {
    const why = 'it can be mounted --read-only or --discard, and nothing can be published'
    findings.push(
      at('warning', 'this user may not write to the share', why, 'chown or export it for this user (docs/nfs.md)')
    )
  }
  if (clockAheadMs !== null && Math.abs(clockAheadMs) > CLOCK_MS_MAX) {
    const direction = clockAheadMs > 0 ? 'ahead of' : 'behind'
    const what = `the clock of the server is ${(Math.abs(clockAheadMs) / 1000).toFixed(0)} s ${direction} this one`
    findings.push(
      at(
        'note',
        what,
        'nothing depends on it, but times in isrfs log and isrfs list mislead',
        'run an NTP client on both'
      )
    )
  }
  if (freeBytes < FREE_BYTES_MIN) {
    const why = 'a suspend that does not fit ends with exit code 5: safe on this client, and not published'
    findings.push(
      at('warning', `${bytes(freeBytes)} are free on the share`, why, 'isrfs prune <vm>, or a larger share')
    )
  }
  return findings
}

/** Of the mount below the directory, from the kernel's table. */
export function mountOptionFindings(
  directory: string,
  table = fs.readFileSync('/proc/self/mounts', 'utf8')
): Finding[] {
  const mount = table
    .split('\n')
    .map((line) => line.split(' '))
    .filter(
      ([, where = '']) =>
        where !== '' && (directory === where || directory.startsWith(where === '/' ? '/' : `${where}/`))
    )
    .sort(([, first = ''], [, second = '']) => first.length - second.length)
    .at(-1)
  if (mount?.[2]?.startsWith('nfs') !== true) return []
  const [, where = '', , list = ''] = mount
  const options = new Map(
    list.split(',').map((option): [string, string | undefined] => [option.split('=')[0] ?? '', option.split('=')[1]])
  )
  const findings: Finding[] = []
  const add = (severity: Finding['severity'], what: string, why: string, change: string): void =>
    void findings.push({ severity, file: where, what, why, change })
  if (options.has('soft') || options.has('softerr')) {
    add(
      'warning',
      'the share is mounted soft',
      'a slow server is taken for a broken one: reads fail instead of waiting',
      'mount it with hard'
    )
  }
  for (const [name, bad] of [['noac'], ['actimeo', '0'], ['lookupcache', 'none'], ['sync']] as const) {
    if (!options.has(name) || (bad !== undefined && options.get(name) !== bad)) continue
    const option = bad === undefined ? name : `${name}=${bad}`
    add(
      'warning',
      `the share is mounted with ${option}`,
      'it costs a round trip for each call, and isrfs does not need it',
      `mount it without ${option}`
    )
  }
  if (options.get('proto') === 'udp') {
    add('warning', 'the share is mounted over UDP', 'a lost packet costs a whole request', 'mount it with proto=tcp')
  }
  const rsize = Number(options.get('rsize') ?? RSIZE_MIN)
  if (rsize < RSIZE_MIN) {
    add(
      'warning',
      `rsize is ${String(rsize)}`,
      'a block of 128 KiB takes several requests',
      'leave rsize and wsize to client and server'
    )
  }
  add(
    'note',
    'whether the export is sync cannot be seen from here',
    'with async a crash of the server loses generations that unmount has called durable',
    'look at /etc/exports on the server (docs/nfs.md)'
  )
  return findings
}
